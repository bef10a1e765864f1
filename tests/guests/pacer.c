/* Everything it hears is mixed into one number, so what it says shows whether it missed an event,
 * heard one twice or in another order. Each item waits for a timer, is told to another agent, is
 * worked on and emitted with that number.
 *   tell        name of an agent that is told each item (default: nobody)
 *   loops       rounds of arithmetic per item (default 1000)
 *   wait        an item waits 1 + its number mod so many steps (default 3) */
#include "lockstep.h"

static uint64_t heard = 14695981039346656037u, events;

static void mix(const ls_event *e) {
    uint64_t words[] = {e->kind, e->flags, e->id, e->item, e->peer, e->len};
    for (uint32_t i = 0; i < 6; i++) heard = (heard ^ words[i]) * 1099511628211u;
    for (uint32_t i = 0; i < e->len; i++)
        heard = (heard ^ (unsigned char)e->payload[i]) * 1099511628211u;
    events++;
}

static uint32_t told(char *text) {
    uint32_t at = ls_decimal(events, text);
    text[at++] = ' ';
    return at + ls_decimal(heard, text + at);
}

LS_MAIN {
    uint32_t tell = LS_NOBODY;
    uint64_t loops = 1000, wait = 3, last = LS_NO_ITEM;
    char text[64];
    for (ls_event e;;) {
        ls_recv(&e);
        mix(&e);
        if (e.kind == LS_START) {
            tell = ls_index_at(&e, "agents", "config.tell");
            loops = (uint64_t)ls_json_number(e.payload, e.len, "config.loops", 1000);
            wait = (uint64_t)ls_json_number(e.payload, e.len, "config.wait", 3);
        } else if (e.kind == LS_ITEM && e.item != last) {
            last = e.item; /* A join's ITEMs of one item lie side by side: the first one counts. */
            ls_set_timer(e.item, e.item, 1 + e.item % wait);
            if (tell != LS_NOBODY) ls_send(tell, e.item, LS_NO_ITEM, text, told(text));
        } else if (e.kind == LS_TIMER) {
            volatile uint64_t burnt = e.item;
            for (uint64_t i = 0; i < loops; i++) burnt = burnt * 6364136223846793005u + i;
            ls_emit(e.item, text, told(text));
        } else if (e.kind == LS_MESSAGE) {
            ls_log(LS_INFO, LS_NO_ITEM, text, told(text));
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
