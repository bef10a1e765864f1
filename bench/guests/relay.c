/* A ring of agents that pass tokens on, each to the next in the order of the fleet file. The
 * message's id counts the hops that are left. Items are echoed.
 *   hops        of one token (1000)
 *   tokens      agents 0 to tokens - 1 start one each (1)
 *   bytes       payload (64) */
#include "lockstep.h"

static char payload[65536];

LS_MAIN {
    uint32_t next = 0;
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_MESSAGE) {
            if (e.id) ls_send(next, e.id - 1, LS_NO_ITEM, e.payload, e.len);
        } else if (e.kind == LS_START) {
            uint64_t hops = (uint64_t)ls_json_number(e.payload, e.len, "config.hops", 1000);
            double tokens = ls_json_number(e.payload, e.len, "config.tokens", 1);
            uint32_t bytes = (uint32_t)ls_json_number(e.payload, e.len, "config.bytes", 64);
            if (bytes > sizeof payload) __builtin_trap();
            next = (e.peer + 1) % (uint32_t)e.item;
            if (e.peer < tokens && hops) ls_send(next, hops - 1, LS_NO_ITEM, payload, bytes);
        } else if (e.kind == LS_ITEM) {
            ls_emit(e.item, e.payload, e.len);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
