/* Shows what the header's helpers find. Item: a path, a line end, then JSON. Emits, separated by
 * line ends: the value as written, its number in thousandths, its string, the string quoted. */
#define LS_OUT_BYTES 64 /* Small, so that the buffers have to grow. */
#define LS_IN_BYTES 64
#include "lockstep.h"

static char path[256], text[1 << 16], output[1 << 18];

LS_MAIN {
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_CLOSE) {
            ls_done(LS_NO_ITEM);
            continue;
        }
        if (e.kind != LS_ITEM) continue;
        uint32_t end = 0, found_len = 0, at = 0;
        while (end < e.len && e.payload[end] != '\n') path[end] = e.payload[end], end++;
        path[end] = 0;
        const char *json = e.payload + end + 1;
        uint32_t len = e.len - end - 1;
        const char *found = ls_json_find(json, len, path, &found_len);
        if (found) {
            ls_copy(output, found, found_len);
            at = found_len;
        }
        output[at++] = '\n';
        double number = ls_json_number(json, len, path, -1) * 1000;
        if (number < 0) output[at++] = '-';
        at += ls_decimal((uint64_t)(number < 0 ? -number : number), output + at);
        output[at++] = '\n';
        int32_t n = ls_json_string(json, len, path, text, sizeof text);
        if (n >= 0) {
            ls_copy(output + at, text, (uint32_t)n);
            at += (uint32_t)n;
            output[at++] = '\n';
            n = ls_json_quote(text, (uint32_t)n, output + at, sizeof output - at);
            at += n < 0 ? 0 : (uint32_t)n;
        }
        ls_emit(e.item, output, at);
        ls_log(LS_DEBUG, e.item, path, end);
        ls_set_timer(e.item, e.item, 3);
        ls_infer_raw_seeded(e.item, e.item, 0, 5, 0.5f, 99, "p", 1);
        ls_cancel(e.item);
    }
}
