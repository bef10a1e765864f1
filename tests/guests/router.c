/* Does with each item what its payload says, an object:
 *   fails       gives it up so often (attempts are counted by the ITEM's id), then emits it
 *   to          name of the agent that it is emitted to
 *   loops       it is emitted `to` so many times (passes are counted by the ITEM's id), then plainly
 *   cancel      number of an item that is cancelled
 * Of the ITEMs of one turn for one item (a join) the first one counts.
 * `to` counts only for the agent that config.routes = 1 makes a router; all others emit plainly. */
#include "lockstep.h"

LS_MAIN {
    ls_event start = {0};
    static char kept[65536]; /* START, for its names. */
    uint32_t routes = 0;
    uint64_t answered = LS_NO_ITEM; /* In this turn: a join's ITEMs of one item lie side by side. */
    for (ls_event e;;) {
        if (!ls_pending()) answered = LS_NO_ITEM;
        ls_recv(&e);
        if (e.kind == LS_START) {
            if (e.len > sizeof kept) __builtin_trap();
            ls_copy(kept, e.payload, e.len);
            start = e;
            start.payload = kept;
            routes = (uint32_t)ls_json_number(e.payload, e.len, "config.routes", 0);
        } else if (e.kind == LS_ITEM && e.item != answered) {
            answered = e.item;
            uint32_t n = 0, to = LS_NOBODY;
            const char *name = ls_json_find(e.payload, e.len, "to", &n);
            double cancel = ls_json_number(e.payload, e.len, "cancel", 0);
            if (routes && name && n > 2) to = ls_index_of(&start, "agents", name + 1, n - 2);
            if (cancel > 0) ls_cancel_item((uint64_t)cancel);
            if ((double)e.id < ls_json_number(e.payload, e.len, "fails", 0))
                ls_give_up(e.item, "told to fail", 12);
            else if ((double)e.id < ls_json_number(e.payload, e.len, "loops", 1e18) &&
                     to != LS_NOBODY)
                ls_emit_to(to, e.item, e.payload, e.len);
            else
                ls_emit(e.item, e.payload, e.len);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
