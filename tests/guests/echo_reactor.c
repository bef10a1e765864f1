/* Reactor form of echo. */
#define LS_REACTOR
#include "lockstep.h"

void ls_on_event(const ls_event *e) {
    if (e->kind == LS_ITEM) ls_emit(e->item, e->payload, e->len);
}
