/* Asks the model with each item's payload as prompt and emits the answer's text.
 * config: tokens (16), temperature (0), model (0, an index). */
#include "lockstep.h"

LS_MAIN {
    uint32_t tokens = 16;
    float temperature = 0;
    uint32_t model = 0;
    for (ls_event e;;) {
        ls_result result;
        ls_recv(&e);
        if (e.kind == LS_START) {
            tokens = (uint32_t)ls_json_number(e.payload, e.len, "config.tokens", 16);
            temperature = (float)ls_json_number(e.payload, e.len, "config.temperature", 0);
            model = (uint32_t)ls_json_number(e.payload, e.len, "config.model", 0);
        } else if (e.kind == LS_ITEM) {
            ls_infer_raw(e.item, e.item, model, tokens, temperature, e.payload, e.len);
        } else if (ls_result_of(&e, &result)) {
            ls_emit(e.item, result.text, result.text_len);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
