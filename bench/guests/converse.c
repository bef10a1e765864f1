/* Holds the conversation that an item writes down: says a line, waits for the answer, says the next
 * line behind everything that was said before. The item is
 *   {"turns": [{"say": text, "tokens": of the answer}, ...]}
 * of letters, digits and spaces (nothing here is escaped). It emits how many characters the
 * conversation has in the end.
 *   shared      text that every conversation begins with (none)
 *   model       index (0) */
#include "lockstep.h"

#define CHARS_MAX 262144

static char request[CHARS_MAX + 256]; /* {"prompt":"...","max_tokens":N} */
static char script[CHARS_MAX], shared[65536];
static uint32_t script_len, shared_len, chars, turn, model;
static const char OPENING[] = "{\"prompt\":\"", MIDDLE[] = "\",\"max_tokens\":";
static char *const TEXT = request + sizeof OPENING - 1;

static void add(const char *text, uint32_t len) {
    if (len > CHARS_MAX - chars) __builtin_trap();
    ls_copy(TEXT + chars, text, len);
    chars += len;
}

static uint32_t digits(uint32_t number, char *to) {
    char turned[10];
    uint32_t count = 0;
    do turned[count++] = (char)('0' + number % 10);
    while (number /= 10);
    for (uint32_t i = 0; i < count; i++) to[i] = turned[count - 1 - i];
    return count;
}

/* "turns.NUMBER.NAME" */
static const char *path_of(const char *name) {
    static char path[64];
    uint32_t at = 6;
    ls_copy(path, "turns.", at);
    at += digits(turn, path + at);
    path[at++] = '.';
    ls_copy(path + at, name, ls_strlen(name) + 1);
    return path;
}

/* The next line and the question; 0 when there is no further line. */
static int ask(uint64_t item) {
    int32_t said = ls_json_string(script, script_len, path_of("say"), TEXT + chars, CHARS_MAX - chars);
    if (said < 0) return 0;
    chars += (uint32_t)said;
    uint32_t tokens = (uint32_t)ls_json_number(script, script_len, path_of("tokens"), 1);
    char *end = TEXT + chars;
    ls_copy(request, OPENING, sizeof OPENING - 1);
    ls_copy(end, MIDDLE, sizeof MIDDLE - 1);
    end += sizeof MIDDLE - 1;
    end += digits(tokens, end);
    *end++ = '}';
    ls_infer_json(++turn, item, model, request, (uint32_t)(end - request));
    return 1;
}

LS_MAIN {
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_START) {
            int32_t len = ls_json_string(e.payload, e.len, "config.shared", shared, sizeof shared);
            shared_len = len < 0 ? 0 : (uint32_t)len;
            model = (uint32_t)ls_json_number(e.payload, e.len, "config.model", 0);
        } else if (e.kind == LS_ITEM) {
            if (e.len > sizeof script) __builtin_trap();
            ls_copy(script, e.payload, script_len = e.len);
            chars = turn = 0;
            add(shared, shared_len);
            if (!ask(e.item)) ls_emit(e.item, "0", 1);
        } else if (e.kind == LS_RESULT) {
            char told[10];
            int32_t len;
            if (e.flags & LS_FLAG_ERROR) {
                ls_give_up(e.item, e.payload, e.len);
                continue;
            }
            len = ls_json_string(e.payload, e.len, "text", TEXT + chars, CHARS_MAX - chars);
            if (len < 0) __builtin_trap();
            chars += (uint32_t)len;
            if (!ask(e.item)) ls_emit(e.item, told, digits(chars, told));
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
