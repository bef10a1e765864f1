/* Has a tool work on each item and emits what it answers; if the tool fails, gives the item up.
 *   tool        its name (default: the first one)
 *   cancel      1: each call is cancelled one turn after it was made (a timer), unless it was
 *               answered; a call that was cancelled emits "cancelled"
 * A payload that begins with '!' and a number cancels the item of that number, and is emitted. */
#include "lockstep.h"

LS_MAIN {
    uint32_t tool = 0, cancel = 0;
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_START) {
            uint32_t named = ls_index_at(&e, "tools", "config.tool");
            if (named != LS_NOBODY) tool = named;
            cancel = (uint32_t)ls_json_number(e.payload, e.len, "config.cancel", 0);
        } else if (e.kind == LS_ITEM && e.len && e.payload[0] == '!') {
            uint64_t item = 0;
            for (uint32_t i = 1; i < e.len && e.payload[i] >= '0' && e.payload[i] <= '9'; i++)
                item = item * 10 + (uint64_t)(e.payload[i] - '0');
            ls_cancel_item(item);
            ls_emit(e.item, e.payload, e.len);
        } else if (e.kind == LS_ITEM) {
            ls_tool_call(e.item, e.item, tool, e.payload, e.len);
            if (cancel) ls_set_timer(e.item, e.item, 1);
        } else if (e.kind == LS_TIMER) {
            ls_cancel(e.id);
        } else if (e.kind == LS_TOOL_RESULT && e.flags & LS_FLAG_ERROR) {
            ls_give_up(e.item, e.payload, e.len);
        } else if (e.kind == LS_TOOL_RESULT) {
            ls_emit(e.item, e.payload, e.len);
        } else if (e.kind == LS_CANCELLED && e.id) {
            ls_emit(e.item, "cancelled", 9);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
