/* Works before it answers: config.loops rounds of arithmetic per item (default 1000), then emits
 * the payload. */
#include "lockstep.h"

LS_MAIN {
    uint64_t loops = 1000;
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_START)
            loops = (uint64_t)ls_json_number(e.payload, e.len, "config.loops", 1000);
        if (e.kind == LS_ITEM) {
            volatile uint64_t burnt = e.item;
            for (uint64_t i = 0; i < loops; i++) burnt = burnt * 6364136223846793005u + i;
            ls_emit(e.item, e.payload, e.len);
        }
        if (e.kind == LS_CLOSE) return;
    }
}
