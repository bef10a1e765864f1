/* Exchanges messages with a partner, very many per turn: each round begins when all messages of
 * the partner's last round are here. Items are echoed.
 *   peer        name of the partner (default: agents 0 and 1, 2 and 3, ...)
 *   messages    per round (1000)
 *   bytes       payload of each, a multiple of 8 (64)
 *   rounds      then it is silent (100); the partner's has to be the same
 *   one_way     1: it only sends, a round per step; the partner has rounds = 0 */
#include "lockstep.h"

static uint32_t peer, messages, bytes, one_way;
static uint64_t rounds, round_now, heard;

static void next_round(void) {
    if (round_now == rounds) return;
    for (uint32_t i = 0; i < messages; i++) {
        uint64_t *to = (uint64_t *)ls_put(LS_SEND, 0, i, LS_NO_ITEM, peer, bytes);
        for (uint32_t k = 0; k < bytes / 8; k++) to[k] = round_now; /* Words: the guest is quick. */
    }
    if (++round_now < rounds && one_way) ls_set_timer(0, LS_NO_ITEM, 1);
}

LS_MAIN {
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_MESSAGE) {
            if (++heard == round_now * messages) next_round();
        } else if (e.kind == LS_TIMER) {
            next_round();
        } else if (e.kind == LS_START) {
            peer = ls_index_at(&e, "agents", "config.peer");
            if (peer == LS_NOBODY) peer = e.peer ^ 1;
            messages = (uint32_t)ls_json_number(e.payload, e.len, "config.messages", 1000);
            bytes = (uint32_t)ls_json_number(e.payload, e.len, "config.bytes", 64);
            rounds = (uint64_t)ls_json_number(e.payload, e.len, "config.rounds", 100);
            one_way = (uint32_t)ls_json_number(e.payload, e.len, "config.one_way", 0);
            if (bytes % 8 || !messages) __builtin_trap();
            next_round();
        } else if (e.kind == LS_ITEM) {
            ls_emit(e.item, e.payload, e.len);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
