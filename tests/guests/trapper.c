/* Traps on item config.trap_item (default 1), otherwise echoes. */
#include "lockstep.h"

LS_MAIN {
    uint64_t trap_item = 1;
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_START)
            trap_item = (uint64_t)ls_json_number(e.payload, e.len, "config.trap_item", 1);
        if (e.kind == LS_ITEM) {
            ls_log(LS_INFO, e.item, "got an item", 11);
            if (e.item == trap_item) __builtin_trap();
            ls_emit(e.item, e.payload, e.len);
        }
        if (e.kind == LS_CLOSE) return;
    }
}
