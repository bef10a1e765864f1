/* An agent that counts words.
 *
 * items: {"text": "..."}
 * emits: {"words": 3}
 *
 * lockstep.h has every call: ls_infer_raw asks a model, ls_send tells another agent something,
 * ls_log writes a line that `lockstep agent run` shows.
 */
#include "lockstep.h"

static char text[65536];

static uint32_t words_in(const char *from, uint32_t len) {
    uint32_t words = 0;
    int inside = 0;
    for (uint32_t i = 0; i < len; i++) {
        int letter = (unsigned char)from[i] > ' ';
        words += letter && !inside;
        inside = letter;
    }
    return words;
}

LS_MAIN {
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_ITEM) {
            int32_t n = ls_json_string(e.payload, e.len, "text", text, sizeof text);
            if (n < 0) {
                ls_give_up(e.item, "no text in it", 13);
                continue;
            }
            char answer[32] = "{\"words\": ";
            uint32_t end = 10 + ls_decimal(words_in(text, (uint32_t)n), answer + 10);
            answer[end++] = '}';
            ls_emit(e.item, answer, end);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
