/* Tells one story: asks the model with all that was said so far, the item's payload last, in one
 * conversation, so that what the model keeps of it is used again; emits the answer. A story of more
 * than config.story bytes (default 90) begins anew.
 * config: tokens (8), temperature in tenths (8), story. The request is JSON. */
#include "lockstep.h"

#define TEXT_MAX 65536
static char story[TEXT_MAX], text[TEXT_MAX], json[TEXT_MAX];
static uint32_t told;

static void tell(const char *part, uint32_t len, uint32_t most) {
    if (told + len > most) told = 0;
    if (len > TEXT_MAX) __builtin_trap();
    ls_copy(story + told, part, len);
    told += len;
}

static uint32_t append(uint32_t at, const char *part) {
    ls_copy(json + at, part, ls_strlen(part));
    return at + ls_strlen(part);
}

static void ask(uint64_t item, uint64_t tokens, uint64_t tenths) {
    uint32_t at = append(0, "{\"conversation\": \"story\", \"prompt\": ");
    int32_t quoted = ls_json_quote(story, told, json + at, TEXT_MAX - 100 - at);
    if (quoted < 0) __builtin_trap();
    at = append(at + (uint32_t)quoted, ", \"max_tokens\": ");
    at += ls_decimal(tokens, json + at);
    at = append(at, ", \"temperature\": 0.");
    at += ls_decimal(tenths, json + at);
    json[at++] = '}';
    ls_infer_json(item, item, 0, json, at);
}

LS_MAIN {
    uint64_t tokens = 8, tenths = 8;
    uint32_t most = 90;
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_START) {
            tokens = (uint64_t)ls_json_number(e.payload, e.len, "config.tokens", 8);
            tenths = (uint64_t)ls_json_number(e.payload, e.len, "config.temperature", 8);
            most = (uint32_t)ls_json_number(e.payload, e.len, "config.story", 90);
        } else if (e.kind == LS_ITEM) {
            int32_t n = ls_json_string(e.payload, e.len, "text", text, TEXT_MAX);
            tell(text, n < 0 ? 0 : (uint32_t)n, most);
            ask(e.item, tokens, tenths);
        } else if (e.kind == LS_RESULT) {
            const char *key = e.flags & LS_FLAG_ERROR ? "error" : "text";
            int32_t n = ls_json_string(e.payload, e.len, key, text, TEXT_MAX);
            ls_emit(e.item, text, n < 0 ? 0 : (uint32_t)n);
            tell(text, n < 0 ? 0 : (uint32_t)n, most);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
