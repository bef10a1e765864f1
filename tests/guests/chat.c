/* Speaks with other agents as its config says; what it hears, it logs.
 *   publish     name of a topic: each item is published there, and emitted
 *   broadcast   1: each item is sent to everybody else, and emitted
 *   call        name of an agent: each item is a call to it; the reply is emitted. A call that comes
 *               back gives the item up
 *   subscribe   name of a topic: subscribed to at START
 *   hear        so many messages of topics are heard, then `subscribe` ends (default: all)
 *   hold        so many calls are kept before all of them are answered, newest first (default 1);
 *               what is still kept at CLOSE is answered then
 * A call is answered with the own index, a colon and the payload. */
#include "lockstep.h"

#define TEXT_MAX 65536
#define HELD_MAX 64
static char text[TEXT_MAX];
static ls_event held[HELD_MAX];
static char held_text[HELD_MAX][256];
static uint32_t self, holding;

static uint32_t join(const char *kind, uint32_t number, const ls_event *e) {
    uint32_t at = ls_strlen(kind);
    if (e->len > TEXT_MAX - 100) __builtin_trap();
    ls_copy(text, kind, at);
    at += ls_decimal(number, text + at);
    text[at++] = ':';
    ls_copy(text + at, e->payload, e->len);
    return at + e->len;
}

static void note(const char *kind, uint32_t number, const ls_event *e) {
    ls_log(LS_INFO, LS_NO_ITEM, text, join(kind, number, e));
}

static void hold(const ls_event *e) {
    if (holding == HELD_MAX || e->len > sizeof held_text[0]) __builtin_trap();
    ls_copy(held_text[holding], e->payload, e->len);
    held[holding] = *e;
    held[holding].payload = held_text[holding];
    holding++;
}

static void answer_all(void) {
    while (holding) {
        const ls_event *call = &held[--holding];
        ls_reply(call->peer, call->id, call->item, text, join("", self, call));
    }
}

LS_MAIN {
    uint32_t publish = LS_NOBODY, called = LS_NOBODY, subscribed = LS_NOBODY;
    uint32_t broadcast = 0, hear = 0, heard = 0, held_max = 1;
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_START) {
            self = e.peer;
            publish = ls_index_at(&e, "topics", "config.publish");
            called = ls_index_at(&e, "agents", "config.call");
            subscribed = ls_index_at(&e, "topics", "config.subscribe");
            broadcast = (uint32_t)ls_json_number(e.payload, e.len, "config.broadcast", 0);
            hear = (uint32_t)ls_json_number(e.payload, e.len, "config.hear", 4e9);
            held_max = (uint32_t)ls_json_number(e.payload, e.len, "config.hold", 1);
            if (subscribed != LS_NOBODY) ls_subscribe(subscribed);
        } else if (e.kind == LS_ITEM) {
            if (publish != LS_NOBODY) ls_publish(publish, e.item, e.item, e.payload, e.len);
            if (broadcast) ls_send(LS_EVERYBODY, e.item, e.item, e.payload, e.len);
            if (called != LS_NOBODY)
                ls_call(called, e.item, e.item, e.payload, e.len);
            else
                ls_emit(e.item, e.payload, e.len);
        } else if (e.kind == LS_MESSAGE && e.flags & LS_FLAG_TOPIC) {
            note("topic ", ls_topic_of(&e), &e);
            if (++heard == hear) ls_unsubscribe(subscribed);
        } else if (e.kind == LS_MESSAGE && e.flags & LS_FLAG_CALL) {
            hold(&e);
            if (holding >= held_max) answer_all();
        } else if (e.kind == LS_MESSAGE && e.flags & LS_FLAG_REPLY) {
            ls_emit(e.item, e.payload, e.len);
        } else if (e.kind == LS_MESSAGE) {
            note("from ", e.peer, &e);
        } else if (e.kind == LS_UNDELIVERED && e.flags & LS_FLAG_CALL) {
            ls_give_up(e.item, "nobody answered", 15);
        } else if (e.kind == LS_UNDELIVERED) {
            note("back from ", e.peer, &e);
        } else if (e.kind == LS_CANCELLED && e.id == 0) {
            note("cancelled ", (uint32_t)e.item, &e);
        } else if (e.kind == LS_CLOSE) {
            answer_all(); /* Not returned: these leave with the next ls_recv. */
        }
    }
}
