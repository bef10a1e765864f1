/* Sends each item's payload once round all agents and emits it when it is back.
 * The message's id counts the hops that are left. */
#include "lockstep.h"

LS_MAIN {
    uint32_t self = 0, agents = 1;
    for (ls_event e;;) {
        ls_recv(&e);
        uint32_t next = (self + 1) % agents;
        if (e.kind == LS_START) {
            self = e.peer;
            agents = (uint32_t)e.item;
        } else if (e.kind == LS_ITEM && agents > 1) {
            ls_send(next, agents - 1, e.item, e.payload, e.len);
        } else if (e.kind == LS_MESSAGE && e.id) {
            ls_send(next, e.id - 1, e.item, e.payload, e.len);
        } else if (e.kind == LS_ITEM || e.kind == LS_MESSAGE || e.kind == LS_UNDELIVERED) {
            ls_emit(e.item, e.payload, e.len);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
