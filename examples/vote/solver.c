/* Solver: asks the model for the answer to each question and emits what it makes of it.
 *
 * config: temperature (0), tokens (8).
 * item:   {"id": "q001", "question": "123+456=", "answer": 579}
 * emits:  {"digits": "975", "value": 579}
 *
 * The model was taught to answer lowest digit first. An answer that is not digits has the value
 * null.
 */
#include "lockstep.h"

#define QUESTION_BYTES_MAX 4096
#define DIGITS_MAX 18 /* Any more would not fit into 64 bits. */

static char question[QUESTION_BYTES_MAX];
static char output[8192];

static void ask(const ls_event *e, uint32_t tokens, float temperature) {
    int32_t n = ls_json_string(e->payload, e->len, "question", question, sizeof question);
    if (n < 0) {
        ls_log(LS_WARNING, e->item, "no question in this item", 24);
        ls_emit(e->item, "{\"digits\": \"\", \"value\": null}", 29);
        return;
    }
    /* An item is asked about once, so its number serves as the request's. */
    ls_infer_raw(e->item, e->item, 0, tokens, temperature, question, (uint32_t)n);
}

/* The value of digits written lowest first; 0 if `text` is something else. */
static int value_of(const char *text, uint32_t len, uint64_t *value) {
    if (len == 0 || len > DIGITS_MAX) return 0;
    *value = 0;
    for (uint32_t i = len; i-- > 0;) {
        if (text[i] < '0' || text[i] > '9') return 0;
        *value = *value * 10 + (uint64_t)(text[i] - '0');
    }
    return 1;
}

static uint32_t append(uint32_t at, const char *part) {
    uint32_t n = ls_strlen(part);
    ls_copy(output + at, part, n);
    return at + n;
}

static void answer(uint64_t item, const char *text, uint32_t len) {
    uint64_t value;
    while (len && (text[len - 1] == ' ' || text[len - 1] == '\n')) len--;
    uint32_t at = append(0, "{\"digits\": ");
    int32_t quoted = ls_json_quote(text, len, output + at, sizeof output - 64);
    if (quoted < 0) quoted = ls_json_quote("", 0, output + at, 2);
    at = append(at + (uint32_t)quoted, ", \"value\": ");
    if (value_of(text, len, &value))
        at += ls_decimal(value, output + at);
    else
        at = append(at, "null");
    at = append(at, "}");
    ls_emit(item, output, at);
}

LS_MAIN {
    uint32_t tokens = 8;
    float temperature = 0;
    for (ls_event e;;) {
        ls_result result;
        ls_recv(&e);
        if (e.kind == LS_START) {
            temperature = (float)ls_json_number(e.payload, e.len, "config.temperature", 0);
            tokens = (uint32_t)ls_json_number(e.payload, e.len, "config.tokens", 8);
        } else if (e.kind == LS_ITEM) {
            ask(&e, tokens, temperature);
        } else if (ls_result_of(&e, &result)) {
            int failed = result.status >= LS_REFUSED;
            if (failed) ls_log(LS_WARNING, e.item, result.text, result.text_len);
            answer(e.item, result.text, failed ? 0 : result.text_len);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
