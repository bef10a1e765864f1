/* `relay` in reactor form: a ring of agents that pass tokens on. Settings as there. */
#define LS_REACTOR
#include "lockstep.h"

static char payload[65536];
static uint32_t next;

void ls_on_event(const ls_event *e) {
    if (e->kind == LS_MESSAGE) {
        if (e->id) ls_send(next, e->id - 1, LS_NO_ITEM, e->payload, e->len);
    } else if (e->kind == LS_START) {
        uint64_t hops = (uint64_t)ls_json_number(e->payload, e->len, "config.hops", 1000);
        double tokens = ls_json_number(e->payload, e->len, "config.tokens", 1);
        uint32_t bytes = (uint32_t)ls_json_number(e->payload, e->len, "config.bytes", 64);
        if (bytes > sizeof payload) __builtin_trap();
        next = (e->peer + 1) % (uint32_t)e->item;
        if (e->peer < tokens && hops) ls_send(next, hops - 1, LS_NO_ITEM, payload, bytes);
    } else if (e->kind == LS_ITEM) {
        ls_emit(e->item, e->payload, e->len);
    }
}
