/* Takes calls to models: each item is one, {"id": ..., "model": NAME, "request": {...}}. The request
 * is asked for as it stands, and what comes back is emitted as it came: an answer, or why there is
 * none. Its only state are the names of the models. */
#define LS_REACTOR
#include "lockstep.h"

#define NAMES_MAX 65536
static char names[NAMES_MAX];
static ls_event models; /* Its payload is the list of START. */

static void know(const ls_event *start) {
    uint32_t len = 0;
    const char *found = ls_json_find(start->payload, start->len, "models", &len);
    if (!found || len > NAMES_MAX) __builtin_trap();
    ls_copy(names, found, len);
    models.payload = names;
    models.len = len;
}

static void ask(const ls_event *item) {
    uint32_t named = 0, len = 0;
    const char *name = ls_json_find(item->payload, item->len, "model", &named);
    const char *request = ls_json_find(item->payload, item->len, "request", &len);
    uint32_t model = LS_NOBODY;
    if (name && named >= 2 && request) model = ls_index_of(&models, "", name + 1, named - 2);
    if (model == LS_NOBODY)
        ls_give_up(item->item, "no call to a model of the fleet", 31);
    else
        ls_infer_json(item->item, item->item, model, request, len);
}

void ls_on_event(const ls_event *e) {
    if (e->kind == LS_START)
        know(e);
    else if (e->kind == LS_ITEM)
        ask(e);
    else if (e->kind == LS_RESULT || (e->kind == LS_CANCELLED && e->id))
        ls_emit(e->item, e->payload, e->len);
}
