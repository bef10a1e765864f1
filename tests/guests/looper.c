/* Never ends its turn once it has an item. */
#include "lockstep.h"

LS_MAIN {
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_ITEM)
            for (volatile uint32_t i = 0;; i++) {
            }
        if (e.kind == LS_CLOSE) return;
    }
}
