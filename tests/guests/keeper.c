/* Reactor whose state is everywhere that state can be: globals, memory, pages that it asked for,
 * and what the host keeps for it (clock, randomness, streams).
 *
 * An item's bytes are commands of two bytes each, "what" and "how much":
 *   b  add to globals that are not exported, an integer and a float
 *   w  write to a page somewhere in memory          z  clear such a page
 *   g  one more page                                r  draw randomness
 *   c  look at the clock                            o  close standard output
 *   l  a line of standard output                    m  look at all memory
 *   t  trap
 * What the item emits is a hash of what the commands gave, in hexadecimal digits, so that each
 * answer depends on all that was before.
 */
#define LS_REACTOR
#include "lockstep.h"

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))
WASI("random_get") int random_get(void *buffer, uint32_t count);
WASI("clock_time_get") int clock_time_get(uint32_t clock, uint64_t precision, uint64_t *result);
WASI("fd_close") int fd_close(uint32_t descriptor);
WASI("fd_write")
int fd_write(uint32_t descriptor, const void *iovecs, uint32_t count, uint32_t *written);

#define PAGE 4096
#define GROWN_MAX 8 /* Pages of 64 KiB. */

/* C has no globals of WebAssembly's, its assembler has. */
__asm__(".globaltype keeper_count, i64\nkeeper_count:\n"
        ".globaltype keeper_float, f32\nkeeper_float:\n");

static uint64_t count_get(void) {
    uint64_t value;
    __asm__ volatile("global.get keeper_count\nlocal.set %0" : "=r"(value));
    return value;
}

static void count_set(uint64_t value) {
    __asm__ volatile("local.get %0\nglobal.set keeper_count" : : "r"(value));
}

static uint32_t float_get(void) {
    uint32_t value;
    __asm__ volatile("global.get keeper_float\ni32.reinterpret_f32\nlocal.set %0" : "=r"(value));
    return value;
}

static void float_set(uint32_t value) {
    __asm__ volatile("local.get %0\nf32.reinterpret_i32\nglobal.set keeper_float" : : "r"(value));
}

static uint64_t sum = 14695981039346656037u;
static uint64_t pool[32 * PAGE / 8]; /* Pages to write to and to clear. */
static uint64_t *grown[GROWN_MAX];   /* What `g` got, 64 KiB each. */
static uint32_t grown_count;

static void take(uint64_t value) { sum = (sum ^ value) * 1099511628211u; }

static uint64_t *page_at(uint32_t number) {
    uint32_t at = number % (32 + grown_count * 16);
    uint64_t *in = at < 32 ? pool : grown[(at - 32) / 16];
    return in + (at < 32 ? at : at % 16) * (PAGE / 8);
}

static uint64_t hash_all(void) {
    uint64_t hash = 0;
    uint64_t words = (uint64_t)__builtin_wasm_memory_size(0) * 8192;
    for (uint64_t at = 1; at < words; at++) hash = (hash ^ *(uint64_t *)(at * 8)) * 31;
    return hash;
}

static void command(char what, uint32_t much) {
    uint64_t value = 0;
    uint32_t line[3] = {(uint32_t)"held\n", 5, 0};
    switch (what) {
    case 'b':
        count_set(count_get() + much);
        float_set(0x7f800001u + much); /* A NaN that a float's arithmetic would make quiet. */
        value = count_get() + float_get();
        break;
    case 'w':
        page_at(much)[much] += count_get() + much + 1;
        value = page_at(much)[much];
        break;
    case 'z':
        for (uint32_t word = 0; word < PAGE / 8; word++) ((volatile uint64_t *)page_at(much))[word] = 0;
        break;
    case 'g':
        if (grown_count < GROWN_MAX) {
            uint32_t first = __builtin_wasm_memory_grow(0, 1);
            if (first == 0xffffffffu) __builtin_trap();
            grown[grown_count++] = (uint64_t *)(first * 65536);
        }
        value = __builtin_wasm_memory_size(0);
        break;
    case 'r':
        random_get(&value, 8);
        break;
    case 'c':
        clock_time_get(0, 0, &value);
        break;
    case 'o':
        value = fd_close(1);
        break;
    case 'l':
        value = fd_write(1, line, 1, &line[2]);
        break;
    case 'm':
        value = hash_all();
        break;
    case 't':
        __builtin_trap();
    }
    take(value);
}

void ls_on_event(const ls_event *e) {
    if (e->kind != LS_ITEM) return;
    for (uint32_t at = 0; at + 1 < e->len; at += 2)
        command(e->payload[at], (unsigned char)e->payload[at + 1]);
    take(count_get());
    take(float_get());
    char text[16];
    for (uint32_t at = 0; at < 16; at++) text[at] = "0123456789abcdef"[sum >> at * 4 & 15];
    ls_emit(e->item, text, sizeof text);
}
