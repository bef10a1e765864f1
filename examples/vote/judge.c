/* Judge: one vote per solver and item; the majority is the answer.
 *
 * config: voters ("solver"), baseline ("greedy"): names of agents; the voters are the replicas
 *         solver.0, solver.1, ...; the baseline's answer is shown but has no vote.
 * items:  from each of them, {"digits": ..., "value": 579 or null}
 * emits:  {"answer": 579, "votes": [579, null, 579, 579, 561], "greedy": 579}
 *
 * Ties go to the smallest value; null wins only if nobody has a value. Answers of many items
 * come in any mixture: each item has a row until its last answer is in.
 */
#include "lockstep.h"

#define AGENTS_MAX 64
#define VOTES_MAX 32
#define ROWS 1024 /* Items in flight; the fleet's items_in_flight_max must not be more. */
#define NONE (-1) /* As value: null. */
#define BASELINE VOTES_MAX

typedef struct {
    uint64_t item;
    uint32_t answers;
    int64_t values[VOTES_MAX + 1];
} row;

static row rows[ROWS];
static uint32_t used;
static int places[AGENTS_MAX]; /* By agent index: its vote's place, or NONE. */
static uint32_t votes, expected;

static void read_roster(const ls_event *e) {
    char voters[64], baseline[64], name[128], path[16] = "agents.";
    int32_t v = ls_json_string(e->payload, e->len, "config.voters", voters, sizeof voters - 1);
    int32_t b = ls_json_string(e->payload, e->len, "config.baseline", baseline, sizeof baseline);
    if (v < 0) ls_copy(voters, "solver", 6), v = 6;
    if (b < 0) ls_copy(baseline, "greedy", 6), b = 6;
    voters[v++] = '.';
    if (e->item > AGENTS_MAX) __builtin_trap();
    for (uint32_t agent = 0; agent < e->item; agent++) {
        path[7 + ls_decimal(agent, path + 7)] = 0;
        int32_t n = ls_json_string(e->payload, e->len, path, name, sizeof name);
        places[agent] = NONE;
        if (n > v && ls_equal(name, voters, (uint32_t)v) && votes < VOTES_MAX)
            places[agent] = (int)votes++;
        else if (n == b && ls_equal(name, baseline, (uint32_t)b))
            places[agent] = BASELINE;
        expected += places[agent] != NONE;
    }
}

/* Rows in use come first, in no order that matters: an answer depends on its own row alone. */
static row *row_of(uint64_t item) {
    for (uint32_t i = 0; i < used; i++)
        if (rows[i].item == item) return &rows[i];
    if (used == ROWS) {
        ls_log(LS_ERROR, item, "more than 1024 items in flight", 30);
        __builtin_trap();
    }
    row *fresh = &rows[used++];
    fresh->item = item;
    fresh->answers = 0;
    for (uint32_t i = 0; i <= VOTES_MAX; i++) fresh->values[i] = NONE;
    return fresh;
}

static int64_t majority(const row *of) {
    int64_t best = NONE;
    uint32_t most = 0;
    for (uint32_t i = 0; i < votes; i++) {
        uint32_t count = 0;
        if (of->values[i] == NONE) continue;
        for (uint32_t k = 0; k < votes; k++) count += of->values[k] == of->values[i];
        if (count > most || (count == most && of->values[i] < best)) {
            best = of->values[i];
            most = count;
        }
    }
    return best;
}

static char output[1024];

static uint32_t append(uint32_t at, const char *part) {
    uint32_t n = ls_strlen(part);
    ls_copy(output + at, part, n);
    return at + n;
}

static uint32_t append_value(uint32_t at, int64_t value) {
    return value == NONE ? append(at, "null") : at + ls_decimal((uint64_t)value, output + at);
}

static void judge(row *of) {
    uint32_t at = append_value(append(0, "{\"answer\": "), majority(of));
    at = append(at, ", \"votes\": [");
    for (uint32_t i = 0; i < votes; i++)
        at = append_value(i ? append(at, ", ") : at, of->values[i]);
    at = append_value(append(at, "], \"greedy\": "), of->values[BASELINE]);
    at = append(at, "}");
    ls_emit(of->item, output, at);
    *of = rows[--used];
}

LS_MAIN {
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_START) {
            read_roster(&e);
        } else if (e.kind == LS_ITEM && e.peer < AGENTS_MAX && places[e.peer] != NONE) {
            row *of = row_of(e.item);
            of->values[places[e.peer]] =
                (int64_t)ls_json_number(e.payload, e.len, "value", NONE);
            if (++of->answers == expected) judge(of);
        } else if (e.kind == LS_CLOSE) {
            return;
        }
    }
}
