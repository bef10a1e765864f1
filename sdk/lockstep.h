/* lockstep.h: agents for Lockstep in C. One header, no library, no libc needed.
 *
 * Include it in ONE source file of a module. docs/abi.md says what the records mean; the layout
 * below is that of engine/record.py.
 *
 * Blocking form (the default): a loop that asks for events.
 *
 *     #include "lockstep.h"
 *     LS_MAIN {
 *         for (ls_event e;;) {
 *             ls_recv(&e);
 *             if (e.kind == LS_ITEM) ls_emit(e.item, e.payload, e.len);
 *             if (e.kind == LS_CLOSE) return;
 *         }
 *     }
 *
 *   python -m ziglang cc --target=wasm32-freestanding -nostdlib -O2 -Wl,--no-entry -I sdk agent.c -o agent.wasm
 *
 * With libc (WASI): write `int main(void)` in place of LS_MAIN and use --target=wasm32-wasi.
 *
 * Reactor form: define LS_REACTOR before the include and write the function that is called for
 * each event; between turns the agent's state is its memory and globals.
 *
 *     #define LS_REACTOR
 *     #include "lockstep.h"
 *     void ls_on_event(const ls_event *e) {
 *         if (e->kind == LS_ITEM) ls_emit(e->item, e->payload, e->len);
 *     }
 *
 * What is sent is kept in a buffer and leaves when the turn ends: in ls_recv when the last event
 * of the batch was taken, or after the last ls_on_event. The buffers start with LS_OUT_BYTES and
 * LS_IN_BYTES and grow; what does not fit into the memory limit is a trap.
 */
#ifndef LOCKSTEP_H
#define LOCKSTEP_H

#include <stdint.h>

#ifndef LS_OUT_BYTES
#define LS_OUT_BYTES 65536 /* Records of one turn; a multiple of 8. */
#endif
#ifndef LS_IN_BYTES
#define LS_IN_BYTES 65536 /* Events of one turn; a multiple of 8. */
#endif

/* ---- Records ------------------------------------------------------------------------------ */

enum {
    /* To the agent. */
    LS_START = 1,       /* id = replica, item = number of agents, peer = own index; JSON */
    LS_ITEM = 2,        /* id = round or attempt, peer = who emitted it, or LS_NOBODY: the input */
    LS_MESSAGE = 3,     /* peer = sender; id, item and flags as it sent them */
    LS_RESULT = 4,      /* id, item of the INFER, peer = model */
    LS_TIMER = 5,       /* id, item of the SET_TIMER */
    LS_TOOL_RESULT = 6, /* id, item of the TOOL_CALL, peer = tool; LS_FLAG_ERROR: it failed */
    LS_CANCELLED = 7,   /* as RESULT; of a tool call: no payload; id 0: an item, and why */
    LS_UNDELIVERED = 8, /* id, item, flags, payload of the SEND; peer = receiver, gone or full */
    LS_CLOSE = 9,       /* nothing more will come: answer or return */
    LS_EVENT = 10,      /* id = number from 1, peer = source; a line of it, or nothing (timer) */
    /* From it. */
    LS_SEND = 33,
    LS_EMIT = 34,
    LS_INFER = 35,
    LS_CANCEL = 36,
    LS_SUBSCRIBE = 37,
    LS_SET_TIMER = 38,
    LS_TOOL_CALL = 39,
    LS_LOG = 40,
    LS_DONE = 41
};

enum {
    LS_FLAG_RAW = 1,
    LS_FLAG_ERROR = 2,
    LS_FLAG_TOPIC = 4, /* The high byte of the flags is the topic: ls_topic_of. */
    LS_FLAG_CALL = 8,  /* The sender waits for a reply: ls_reply. */
    LS_FLAG_REPLY = 16 /* The reply to the call with this id. */
};
enum { LS_DEBUG = 0, LS_INFO = 1, LS_WARNING = 2, LS_ERROR = 3 };

#define LS_NOBODY 0xFFFFFFFFu    /* As peer. */
#define LS_EVERYBODY 0xFFFFFFFEu /* As peer of ls_send: all other agents. */
#define LS_NO_ITEM 0u            /* Items are numbered from 1. */

/* Header of a record in memory: 32 bytes, then the payload, zero-padded to 8. `size` counts
 * header and payload. */
typedef struct {
    uint32_t size;
    uint16_t kind;
    uint16_t flags;
    uint64_t id;
    uint64_t item;
    uint32_t peer;
    uint32_t reserved; /* 0 */
} ls_header;

_Static_assert(sizeof(ls_header) == 32, "the header of a record has 32 bytes");

/* An event as ls_recv and ls_on_event give it. `payload` is valid until the next ls_recv, or
 * until ls_on_event returns. */
typedef struct {
    uint16_t kind;
    uint16_t flags;
    uint64_t id;
    uint64_t item;
    uint32_t peer;
    uint32_t len;
    const char *payload;
} ls_event;

/* ---- Buffers ------------------------------------------------------------------------------ */

typedef struct {
    char *at;
    uint32_t len;
    uint32_t cap;
} ls_buffer;

static _Alignas(8) char ls_out_first[LS_OUT_BYTES];
static _Alignas(8) char ls_in_first[LS_IN_BYTES];
static ls_buffer ls_out = {ls_out_first, 0, LS_OUT_BYTES};
static ls_buffer ls_in = {ls_in_first, 0, LS_IN_BYTES};

static inline void ls_copy(char *to, const char *from, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) to[i] = from[i];
}

static inline int ls_equal(const char *a, const char *b, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (a[i] != b[i]) return 0;
    return 1;
}

static inline uint32_t ls_strlen(const char *text) {
    uint32_t n = 0;
    while (text[n]) n++;
    return n;
}

/* Make room for `cap` bytes in all, keeping what is there. New room is fresh pages at the end of
 * memory (at least twice what there was, so that what is left behind stays below what is used). */
static inline void ls_reserve(ls_buffer *buffer, uint32_t cap) {
    if (cap <= buffer->cap) return;
    uint32_t wanted = buffer->cap < 0x40000000u ? buffer->cap * 2 : cap;
    if (wanted < cap) wanted = cap;
    uint32_t pages = (uint32_t)(((uint64_t)wanted + 65535) >> 16);
    uint32_t old = (uint32_t)__builtin_wasm_memory_grow(0, pages);
    if (old == 0xFFFFFFFFu) __builtin_trap();
    char *at = (char *)(old << 16);
    ls_copy(at, buffer->at, buffer->len);
    buffer->at = at;
    buffer->cap = pages << 16;
}

/* ---- Sending ------------------------------------------------------------------------------ */

/* Begin a record with `len` bytes of payload, padding zeroed; fill in what is returned. */
static inline char *ls_put(uint16_t kind, uint16_t flags, uint64_t id, uint64_t item,
                           uint32_t peer, uint32_t len) {
    uint32_t size = 32 + len, padded = (size + 7) & ~7u;
    if (size < len || ls_out.len + padded < padded) __builtin_trap();
    ls_reserve(&ls_out, ls_out.len + padded);
    char *at = ls_out.at + ls_out.len;
    *(ls_header *)at = (ls_header){size, kind, flags, id, item, peer, 0};
    for (uint32_t i = size; i < padded; i++) at[i] = 0;
    ls_out.len += padded;
    return at + 32;
}

/* Any record at all, for what the functions below do not offer. */
static inline void ls_write(uint16_t kind, uint16_t flags, uint64_t id, uint64_t item,
                            uint32_t peer, const void *payload, uint32_t len) {
    char *at = ls_put(kind, flags, id, item, peer, len);
    ls_copy(at, (const char *)payload, len);
}

/* A message to another agent. `id` and `item` arrive with it; an UNDELIVERED carries them, too. */
static inline void ls_send(uint32_t peer, uint64_t id, uint64_t item, const void *payload,
                           uint32_t len) {
    ls_write(LS_SEND, 0, id, item, peer, payload, len);
}

/* A message to whoever is subscribed to a topic when it takes effect. */
static inline void ls_publish(uint32_t topic, uint64_t id, uint64_t item, const void *payload,
                              uint32_t len) {
    ls_write(LS_SEND, (uint16_t)(LS_FLAG_TOPIC | topic << 8), id, item, LS_NOBODY, payload, len);
}

/* From this turn's effect on, get what is published on a topic. */
static inline void ls_subscribe(uint32_t topic) {
    ls_write(LS_SUBSCRIBE, (uint16_t)(LS_FLAG_TOPIC | topic << 8), 0, LS_NO_ITEM, LS_NOBODY, 0, 0);
}

/* And no more. */
static inline void ls_unsubscribe(uint32_t topic) {
    ls_write(LS_SUBSCRIBE, (uint16_t)(LS_FLAG_TOPIC | topic << 8), 1, LS_NO_ITEM, LS_NOBODY, 0, 0);
}

/* Ask another agent. `id` is the call's number, any that waits for no reply. The answer is a
 * MESSAGE from `peer` with LS_FLAG_REPLY and this id, or UNDELIVERED with LS_FLAG_CALL. */
static inline void ls_call(uint32_t peer, uint64_t id, uint64_t item, const void *payload,
                           uint32_t len) {
    ls_write(LS_SEND, LS_FLAG_CALL, id, item, peer, payload, len);
}

/* Answer a MESSAGE with LS_FLAG_CALL, once, in this turn or a later one: keep its id, item and
 * peer. */
static inline void ls_reply(uint32_t peer, uint64_t id, uint64_t item, const void *payload,
                            uint32_t len) {
    ls_write(LS_SEND, LS_FLAG_REPLY, id, item, peer, payload, len);
}

/* This agent's output for an item it holds: JSON if it parses, else text. Once per item (round). */
static inline void ls_emit(uint64_t item, const void *payload, uint32_t len) {
    ls_write(LS_EMIT, 0, 0, item, LS_NOBODY, payload, len);
}

/* In a dag: the output goes to this successor alone, named by one of its agents; or back to an
 * agent that `back` allows. */
static inline void ls_emit_to(uint32_t successor, uint64_t item, const void *payload,
                              uint32_t len) {
    ls_write(LS_EMIT, 0, 0, item, successor, payload, len);
}

/* Give an item up: it comes again while there are `retries`, else it fails; `why` is the reason. */
static inline void ls_give_up(uint64_t item, const void *why, uint32_t len) {
    ls_write(LS_EMIT, LS_FLAG_ERROR, 0, item, LS_NOBODY, why, len);
}

/* Have a host command run. `input` is its standard input; what it writes comes as TOOL_RESULT.
 * Numbers are those of ls_infer_raw: no two open ones are equal. */
static inline void ls_tool_call(uint64_t id, uint64_t item, uint32_t tool, const void *input,
                                uint32_t len) {
    ls_write(LS_TOOL_CALL, 0, id, item, tool, input, len);
}

/* Ask a model. `id` is the request's number, any that waits for no answer; it comes back in the
 * RESULT, whose payload ls_result_of reads. Temperature 0 is greedy. */
static inline void ls_infer_raw(uint64_t id, uint64_t item, uint32_t model,
                                uint32_t tokens_out_max, float temperature, const void *prompt,
                                uint32_t len) {
    char *at = ls_put(LS_INFER, LS_FLAG_RAW, id, item, model, 24 + len);
    *(uint32_t *)at = tokens_out_max;
    *(float *)(at + 4) = temperature;
    for (int i = 8; i < 24; i += 4) *(uint32_t *)(at + i) = 0;
    ls_copy(at + 24, (const char *)prompt, len);
}

/* As ls_infer_raw, with a seed of its own in place of the run's. */
static inline void ls_infer_raw_seeded(uint64_t id, uint64_t item, uint32_t model,
                                       uint32_t tokens_out_max, float temperature, uint64_t seed,
                                       const void *prompt, uint32_t len) {
    char *at = ls_put(LS_INFER, LS_FLAG_RAW, id, item, model, 24 + len);
    *(uint32_t *)at = tokens_out_max;
    *(float *)(at + 4) = temperature;
    *(uint32_t *)(at + 8) = 1;
    *(uint32_t *)(at + 12) = 0;
    *(uint64_t *)(at + 16) = seed;
    ls_copy(at + 24, (const char *)prompt, len);
}

/* Ask a model with a chat-completions object; the RESULT's payload is JSON. */
static inline void ls_infer_json(uint64_t id, uint64_t item, uint32_t model, const char *json,
                                 uint32_t len) {
    ls_write(LS_INFER, 0, id, item, model, json, len);
}

/* Cancel a request or tool call by its number. What ended before stands; else a CANCELLED comes. */
static inline void ls_cancel(uint64_t id) {
    ls_write(LS_CANCEL, 0, id, LS_NO_ITEM, LS_NOBODY, 0, 0);
}

/* Cancel an item for everybody: it fails, whoever was given it gets CANCELLED with id 0. */
static inline void ls_cancel_item(uint64_t item) {
    ls_write(LS_CANCEL, 0, 0, item, LS_NOBODY, 0, 0);
}

/* Cancel the whole run, if the fleet lets this agent (may_cancel_run). */
static inline void ls_cancel_run(void) {
    ls_write(LS_CANCEL, 0, 0, LS_NO_ITEM, LS_EVERYBODY, 0, 0);
}

/* A TIMER event `steps` (at least 1) after this turn's effect. */
static inline void ls_set_timer(uint64_t id, uint64_t item, uint64_t steps) {
    *(uint64_t *)ls_put(LS_SET_TIMER, 0, id, item, LS_NOBODY, 8) = steps;
}

/* A log line, UTF-8. It leaves with the turn's other records: what a turn logged here before it
 * traps is lost with it. (With libc, standard error is logged at once and survives.) */
static inline void ls_log(int level, uint64_t item, const void *text, uint32_t len) {
    ls_write(LS_LOG, 0, (uint64_t)level, item, LS_NOBODY, text, len);
}

/* Round-robin: the item's conversation ends here. Item 0: this agent has ended. */
static inline void ls_done(uint64_t item) { ls_write(LS_DONE, 0, 0, item, LS_NOBODY, 0, 0); }

/* ---- Receiving ---------------------------------------------------------------------------- */

/* The topic of a message with LS_FLAG_TOPIC. */
static inline uint32_t ls_topic_of(const ls_event *event) { return event->flags >> 8; }

/* The event at `offset` of `len` bytes of records; the offset of the next one. */
static inline uint32_t ls_event_at(const char *events, uint32_t offset, ls_event *event) {
    const ls_header *head = (const ls_header *)(events + offset);
    event->kind = head->kind;
    event->flags = head->flags;
    event->id = head->id;
    event->item = head->item;
    event->peer = head->peer;
    event->len = head->size - 32;
    event->payload = events + offset + 32;
    return offset + ((head->size + 7) & ~7u);
}

#ifdef LS_REACTOR

__attribute__((import_module("lockstep"), import_name("submit"))) void ls_import_submit(
    const void *out, uint32_t out_len);

void ls_on_event(const ls_event *event); /* Yours. */

__attribute__((export_name("lockstep_alloc"))) char *ls_alloc(uint32_t len) {
    ls_in.len = 0; /* The last batch is over: nothing of it has to be kept. */
    ls_reserve(&ls_in, len);
    return ls_in.at;
}

__attribute__((export_name("on_events"))) int32_t ls_on_events(const char *events, uint32_t len) {
    ls_event event;
    for (uint32_t at = 0; at < len;) {
        at = ls_event_at(events, at, &event);
        ls_on_event(&event);
    }
    if (ls_out.len) ls_import_submit(ls_out.at, ls_out.len);
    ls_out.len = 0;
    return 0;
}

#else

__attribute__((import_module("lockstep"), import_name("turn"))) int32_t ls_import_turn(
    const void *out, uint32_t out_len, void *in, uint32_t in_cap);

static uint32_t ls_next; /* Offset in ls_in of the event that ls_recv gives next. */

/* The next event. When the batch is used up, what was sent is submitted, the turn ends, and this
 * blocks until the next one. */
static inline void ls_recv(ls_event *event) {
    while (ls_next >= ls_in.len) {
        int32_t got = ls_import_turn(ls_out.at, ls_out.len, ls_in.at, ls_in.cap);
        ls_out.len = 0; /* Taken, even if the answer is "need more room". */
        ls_in.len = 0;
        ls_next = 0;
        if (got < 0) {
            ls_reserve(&ls_in, (uint32_t)-got);
            got = ls_import_turn(ls_out.at, 0, ls_in.at, ls_in.cap);
            if (got < 0) __builtin_trap();
        }
        ls_in.len = (uint32_t)got;
    }
    ls_next = ls_event_at(ls_in.at, ls_next, event);
}

/* Whether ls_recv has another event of this turn: if not, the next call ends it. */
static inline int ls_pending(void) { return ls_next < ls_in.len; }

/* The entry of an agent without libc. */
#define LS_MAIN                                                                \
    static void ls_main(void);                                                 \
    __attribute__((export_name("main"))) void ls_entry(void) { ls_main(); }    \
    static void ls_main(void)

#endif

/* ---- Results of raw requests -------------------------------------------------------------- */

enum {
    LS_STOP = 0,
    LS_LENGTH = 1,
    LS_REFUSED = 2,
    LS_INVALID_OUTPUT = 3,
    LS_STATUS_CANCELLED = 4,
    LS_TIMEOUT = 5
};

typedef struct {
    uint32_t status; /* From LS_REFUSED on, `text` is the reason. */
    uint32_t tokens_in;
    uint32_t tokens_out;
    uint32_t text_len;
    uint64_t ticket;
    uint64_t step;
    const char *text;
    const int32_t *tokens;
} ls_result;

/* Read a RESULT or CANCELLED of a raw request; 0 if the event is none. Valid as long as the
 * event's payload. */
static inline int ls_result_of(const ls_event *event, ls_result *result) {
    const char *p = event->payload;
    if ((event->kind != LS_RESULT && event->kind != LS_CANCELLED) ||
        !(event->flags & LS_FLAG_RAW) || event->len < 32)
        return 0;
    result->status = *(const uint32_t *)p;
    result->tokens_in = *(const uint32_t *)(p + 4);
    result->tokens_out = *(const uint32_t *)(p + 8);
    result->text_len = *(const uint32_t *)(p + 12);
    result->ticket = *(const uint64_t *)(p + 16);
    result->step = *(const uint64_t *)(p + 24);
    result->text = p + 32;
    if (result->text_len > event->len - 32) return 0;
    result->tokens = (const int32_t *)(p + 32 + ((result->text_len + 3) & ~3u));
    return 1;
}

/* ---- A little JSON ------------------------------------------------------------------------ */
/* For configuration and small payloads: it looks things up in well-formed JSON; in malformed
 * JSON it finds nothing, or something that is there. It never reads outside. */

#define LS_JSON_DEPTH_MAX 64

static inline uint32_t ls_json_space(const char *json, uint32_t len, uint32_t at) {
    while (at < len && (json[at] == ' ' || json[at] == '\n' || json[at] == '\t' ||
                        json[at] == '\r' || json[at] == ',' || json[at] == ':'))
        at++;
    return at;
}

/* Offset behind the value at `at`. */
static inline uint32_t ls_json_skip(const char *json, uint32_t len, uint32_t at) {
    int depth = 0;
    for (;;) {
        at = ls_json_space(json, len, at);
        if (at >= len) return len;
        char c = json[at++];
        if (c == '"') {
            while (at < len && json[at] != '"') at += json[at] == '\\' ? 2 : 1;
            at = at < len ? at + 1 : len;
        } else if (c == '{' || c == '[') {
            if (++depth > LS_JSON_DEPTH_MAX) return len;
        } else if (c == '}' || c == ']') {
            depth--;
        } else {
            while (at < len && json[at] != ',' && json[at] != '}' && json[at] != ']' &&
                   json[at] != ' ' && json[at] != '\n' && json[at] != '\r' && json[at] != '\t')
                at++;
        }
        if (depth <= 0) return at;
    }
}

/* Find the value at a path such as "config.temperature" or "agents.2" (numbers count elements of
 * a list). Returns it as it is written, or 0 (NULL) if there is none. */
static inline const char *ls_json_find(const char *json, uint32_t len, const char *path,
                                       uint32_t *found_len) {
    uint32_t at = ls_json_space(json, len, 0), end = ls_json_skip(json, len, at);
    while (*path) {
        uint32_t part = 0;
        while (path[part] && path[part] != '.') part++;
        if (at >= end || (json[at] != '{' && json[at] != '[')) return 0;
        int list = json[at] == '[', found = 0;
        uint32_t index = 0, count = 0;
        for (uint32_t i = 0; list && i < part; i++) index = index * 10 + (uint32_t)(path[i] - '0');
        at = ls_json_space(json, end, at + 1);
        while (!found && at < end && json[at] != '}' && json[at] != ']') {
            uint32_t key = at;
            if (list) {
                found = count++ == index;
            } else {
                at = ls_json_skip(json, end, at);
                found = at - key == part + 2 && json[key] == '"' &&
                        ls_equal(json + key + 1, path, part);
                at = ls_json_space(json, end, at);
            }
            uint32_t stop = ls_json_skip(json, end, at);
            if (found)
                end = stop;
            else
                at = ls_json_space(json, end, stop);
        }
        if (!found) return 0;
        path += part + (path[part] == '.');
    }
    *found_len = end - at;
    return json + at;
}

/* The number at a path, or `otherwise`. */
static inline double ls_json_number(const char *json, uint32_t len, const char *path,
                                    double otherwise) {
    uint32_t n = 0, i = 0;
    const char *p = ls_json_find(json, len, path, &n);
    if (!p || !n) return otherwise;
    int minus = p[0] == '-', exponent = 0, down = 0, digits = 0, shift = 0;
    double value = 0;
    for (i = (uint32_t)minus; i < n && p[i] >= '0' && p[i] <= '9'; i++, digits++)
        value = value * 10 + (p[i] - '0');
    if (i < n && p[i] == '.')
        for (i++; i < n && p[i] >= '0' && p[i] <= '9'; i++, shift--) value = value * 10 + (p[i] - '0');
    if (i < n && (p[i] == 'e' || p[i] == 'E')) {
        down = ++i < n && p[i] == '-';
        if (i < n && (p[i] == '-' || p[i] == '+')) i++;
        for (; i < n && p[i] >= '0' && p[i] <= '9' && exponent < 1000; i++)
            exponent = exponent * 10 + (p[i] - '0');
    }
    if (!digits || i != n) return otherwise;
    shift += down ? -exponent : exponent;
    double power = 1; /* One division at the end: 0.8 is 8 / 10, correctly rounded. */
    for (int k = shift < 0 ? -shift : shift; k > 0; k--) power *= 10;
    value = shift < 0 ? value / power : value * power;
    return minus ? -value : value;
}

static inline int ls_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 0;
}

static inline uint32_t ls_hex4(const char *p) {
    return (uint32_t)(ls_hex(p[0]) << 12 | ls_hex(p[1]) << 8 | ls_hex(p[2]) << 4 | ls_hex(p[3]));
}

static inline uint32_t ls_utf8(char *to, uint32_t code) {
    if (code < 0x80) return to[0] = (char)code, 1;
    uint32_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (uint32_t i = n - 1; i > 0; i--, code >>= 6) to[i] = (char)(0x80 | (code & 0x3F));
    to[0] = (char)((0xF00 >> n & 0xFF) | code);
    return n;
}

/* Copy the string at a path, escapes resolved, without a zero at the end. Its length in UTF-8, or
 * -1 if there is no string or it does not fit into `cap` (len bytes are always enough). */
static inline int32_t ls_json_string(const char *json, uint32_t len, const char *path, char *to,
                                     uint32_t cap) {
    uint32_t n = 0, out = 0;
    const char *p = ls_json_find(json, len, path, &n);
    if (!p || n < 2 || p[0] != '"' || p[n - 1] != '"') return -1;
    for (uint32_t i = 1; i < n - 1; i++) {
        char piece[4] = {p[i]};
        uint32_t size = 1;
        if (p[i] == '\\') {
            char c = p[++i];
            piece[0] = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'b' ? '\b'
                     : c == 'f' ? '\f' : c;
            if (c == 'u' && i + 4 < n - 1) {
                uint32_t code = ls_hex4(p + i + 1);
                i += 4;
                if (code >> 10 == 0x36 && i + 6 < n - 1 && p[i + 1] == '\\' && p[i + 2] == 'u') {
                    code = 0x10000 + ((code & 0x3FF) << 10) + (ls_hex4(p + i + 3) & 0x3FF);
                    i += 6;
                }
                size = ls_utf8(piece, code);
            }
        }
        if (out + size > cap) return -1;
        ls_copy(to + out, piece, size);
        out += size;
    }
    return (int32_t)out;
}

/* Write `text` as a JSON string with its quotes: the length, or -1 if it does not fit (6 * len + 2
 * are always enough). Bytes from 0x80 on pass as they are. */
static inline int32_t ls_json_quote(const char *text, uint32_t len, char *to, uint32_t cap) {
    static const char hex[] = "0123456789abcdef";
    uint32_t out = 0;
    if (cap < 2) return -1;
    to[out++] = '"';
    for (uint32_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        uint32_t size = c < 0x20 ? 6 : c == '"' || c == '\\' ? 2 : 1;
        if (out + size + 1 > cap) return -1;
        if (size > 1) to[out++] = '\\';
        if (size == 6) {
            ls_copy(to + out, "u00", 3);
            to[out + 3] = hex[c >> 4];
            to[out + 4] = hex[c & 15];
            out += 5;
        } else {
            to[out++] = (char)c;
        }
    }
    to[out++] = '"';
    return (int32_t)out;
}

/* The index of a name in a list of START: "agents", "models", "topics", "tools" or "sources". As
 * peer or topic of the functions above; LS_NOBODY if there is no such name. */
static inline uint32_t ls_index_of(const ls_event *start, const char *list, const char *name,
                                   uint32_t len) {
    uint32_t size = 0, index = 0;
    const char *names = ls_json_find(start->payload, start->len, list, &size);
    if (!names || names[0] != '[') return LS_NOBODY;
    for (uint32_t at = ls_json_space(names, size, 1); at < size && names[at] != ']'; index++) {
        uint32_t end = ls_json_skip(names, size, at);
        if (end - at == len + 2 && names[at] == '"' && ls_equal(names + at + 1, name, len))
            return index;
        at = ls_json_space(names, size, end);
    }
    return LS_NOBODY;
}

/* The index of the name that stands at a path of START, such as "config.tool", in a list as above;
 * LS_NOBODY if there is none. */
static inline uint32_t ls_index_at(const ls_event *start, const char *list, const char *path) {
    uint32_t n = 0;
    const char *p = ls_json_find(start->payload, start->len, path, &n);
    return p && n >= 2 && p[0] == '"' ? ls_index_of(start, list, p + 1, n - 2) : LS_NOBODY;
}

/* Write a number in decimal; its length (at most 20). */
static inline uint32_t ls_decimal(uint64_t value, char *to) {
    char digits[20];
    uint32_t n = 0;
    do digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    for (uint32_t i = 0; i < n; i++) to[i] = digits[n - 1 - i];
    return n;
}

#endif
