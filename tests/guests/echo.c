/* Blocking form: emits each item's payload as it came. */
#include "lockstep.h"

LS_MAIN {
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_ITEM) ls_emit(e.item, e.payload, e.len);
        if (e.kind == LS_CLOSE) return;
    }
}
