/* One voice of a round-robin conversation: asks with what was said last, emits the answer.
 * config: tokens (16), temperature (0.8). The request is JSON; requests are numbered. */
#include "lockstep.h"

#define TEXT_MAX 65536
static char text[TEXT_MAX], json[TEXT_MAX];

static uint32_t append(uint32_t at, const char *part) {
    uint32_t n = ls_strlen(part);
    if (at + n > TEXT_MAX) __builtin_trap();
    ls_copy(json + at, part, n);
    return at + n;
}

static void ask(const ls_event *e, uint64_t number, uint64_t tokens, uint64_t tenths) {
    uint32_t at = append(0, "{\"prompt\": ");
    int32_t quoted = ls_json_quote(e->payload, e->len, json + at, TEXT_MAX - 100 - at);
    if (quoted < 0) __builtin_trap();
    at = append(at + (uint32_t)quoted, ", \"max_tokens\": ");
    at += ls_decimal(tokens, json + at);
    at = append(at, ", \"temperature\": ");
    at += ls_decimal(tenths / 10, json + at);
    json[at++] = '.';
    at += ls_decimal(tenths % 10, json + at);
    json[at++] = '}';
    ls_infer_json(number, e->item, 0, json, at);
}

LS_MAIN {
    uint64_t number = 0, tokens = 16, tenths = 8;
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_START) {
            tokens = (uint64_t)ls_json_number(e.payload, e.len, "config.tokens", 16);
            tenths = (uint64_t)(ls_json_number(e.payload, e.len, "config.temperature", 0.8) * 10 + 0.5);
        } else if (e.kind == LS_ITEM) {
            ask(&e, ++number, tokens, tenths);
        } else if (e.kind == LS_RESULT) {
            const char *key = e.flags & LS_FLAG_ERROR ? "error" : "text";
            int32_t n = ls_json_string(e.payload, e.len, key, text, TEXT_MAX);
            ls_emit(e.item, text, n < 0 ? 0 : (uint32_t)n);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
