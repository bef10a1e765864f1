/* Works, asks a model, and works on the answer: so many times per item, then emits the last answer.
 * Work is arithmetic that burns fuel; how much is drawn from the config's seed, the own index, the
 * item and the request, so that it is the same in every run.
 *   fuel         mean of one piece of work (1000000): before each request and before the output
 *   tail         1: heavy tail (half of the draws burn a quarter to three quarters of the mean, few
 *                burn many times as much); 0: always the mean (1)
 *   requests     per item (1), at most 63
 *   tokens       of each answer (16)
 *   temperature  (0)
 *   prompt_bytes of each request (16), drawn from the ten digits
 *   model        index (0)
 *   seed         (0) */
#include "lockstep.h"

#define FUEL_PER_ROUND 18 /* Of `work`; a test holds it against what is burnt. */
#define REQUESTS_MAX 63
#define TAIL_MAX 24 /* 1.5 to this power is 17,000. */

static char prompt[65536];
static uint64_t fuel, requests, seed, self;
static uint32_t tail, tokens, prompt_bytes, model;
static float temperature;

static uint64_t mix(uint64_t x) { /* splitmix64 */
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static uint64_t draw(uint64_t item, uint64_t request, uint64_t what) {
    return mix(mix(mix(mix(seed) ^ self) ^ item) ^ (request << 8 | what));
}

/* Fuel of one piece of work. With a tail: half the mean, times 1.5 to the power of k with
 * probability 2 to the power of -(k + 1), times 0.5 to 1.5: the mean is `fuel`, no variance. */
static uint64_t amount(uint64_t item, uint64_t request) {
    uint64_t bits = draw(item, request, 0);
    double burn = (double)fuel;
    if (!tail) return fuel;
    burn *= 0.5 * (0.5 + (double)(bits >> 40) / 16777216);
    for (int k = 0; k < TAIL_MAX && bits & 1; k++, bits >>= 1) burn *= 1.5;
    return (uint64_t)burn;
}

static __attribute__((noinline)) uint64_t work(uint64_t rounds, uint64_t state) {
#pragma clang loop unroll(disable)
    for (; rounds; rounds--) state = state * 6364136223846793005u + rounds;
    return state;
}

static void think(uint64_t item, uint64_t request) {
    volatile uint64_t thought = work(amount(item, request) / FUEL_PER_ROUND, item);
    (void)thought; /* Volatile, so that the work is done. */
}

static void ask(uint64_t item, uint64_t request) {
    for (uint32_t i = 0; i < prompt_bytes; i++)
        prompt[i] = (char)('0' + draw(item, request, i + 1) % 10);
    ls_infer_raw(item * (REQUESTS_MAX + 1) + request, item, model, tokens, temperature, prompt,
                 prompt_bytes);
}

LS_MAIN {
    for (ls_event e;;) {
        ls_result answer;
        ls_recv(&e);
        if (e.kind == LS_START) {
            self = e.peer;
            fuel = (uint64_t)ls_json_number(e.payload, e.len, "config.fuel", 1000000);
            tail = (uint32_t)ls_json_number(e.payload, e.len, "config.tail", 1);
            requests = (uint64_t)ls_json_number(e.payload, e.len, "config.requests", 1);
            tokens = (uint32_t)ls_json_number(e.payload, e.len, "config.tokens", 16);
            temperature = (float)ls_json_number(e.payload, e.len, "config.temperature", 0);
            prompt_bytes = (uint32_t)ls_json_number(e.payload, e.len, "config.prompt_bytes", 16);
            model = (uint32_t)ls_json_number(e.payload, e.len, "config.model", 0);
            seed = (uint64_t)ls_json_number(e.payload, e.len, "config.seed", 0);
            if (prompt_bytes > sizeof prompt || requests > REQUESTS_MAX) __builtin_trap();
        } else if (e.kind == LS_ITEM) {
            think(e.item, 0);
            if (requests)
                ask(e.item, 1);
            else
                ls_emit(e.item, e.payload, e.len);
        } else if (ls_result_of(&e, &answer)) {
            uint64_t request = e.id % (REQUESTS_MAX + 1);
            think(e.item, request);
            if (request < requests)
                ask(e.item, request + 1);
            else
                ls_emit(e.item, answer.text, answer.text_len);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
