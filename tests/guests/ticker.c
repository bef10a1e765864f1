/* Logs the events of sources: index of the source, number and payload. Echoes items.
 *   done        so many events end this agent (default: never)
 *   forward     name of an agent that is sent each event's payload */
#include "lockstep.h"

static char text[65536];

LS_MAIN {
    uint32_t done = 0, seen = 0, forward = LS_NOBODY;
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_START) {
            done = (uint32_t)ls_json_number(e.payload, e.len, "config.done", 0);
            forward = ls_index_at(&e, "agents", "config.forward");
        } else if (e.kind == LS_EVENT) {
            if (e.len > sizeof text - 100) __builtin_trap();
            uint32_t at = ls_decimal(e.peer, text);
            text[at++] = ' ';
            at += ls_decimal(e.id, text + at);
            text[at++] = ' ';
            ls_copy(text + at, e.payload, e.len);
            ls_log(LS_INFO, LS_NO_ITEM, text, at + e.len);
            if (forward != LS_NOBODY) ls_send(forward, e.id, LS_NO_ITEM, e.payload, e.len);
            if (++seen == done) ls_done(LS_NO_ITEM);
        } else if (e.kind == LS_ITEM) {
            ls_emit(e.item, e.payload, e.len);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
