/* Hands each item's payload to the model as a JSON request, and emits the answer as it came. */
#include "lockstep.h"

LS_MAIN {
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_ITEM)
            ls_infer_json(e.item, e.item, 0, e.payload, e.len);
        else if (e.kind == LS_RESULT)
            ls_emit(e.item, e.payload, e.len);
        else if (e.kind == LS_CLOSE)
            return;
    }
}
