/* WASI command: prints, then emits clock and random for each item. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "lockstep.h"

int main(int argc, char **argv) {
    printf("hello from %s, %d argument\n", argv[0], argc);
    fprintf(stderr, "this is standard error\n");
    for (ls_event e;;) {
        ls_recv(&e);
        if (e.kind == LS_CLOSE) return 0;
        if (e.kind != LS_ITEM) continue;
        struct timespec now;
        unsigned char random[8];
        char text[128];
        clock_gettime(CLOCK_REALTIME, &now);
        if (getentropy(random, sizeof random)) return 1;
        int len = snprintf(text, sizeof text, "{\"s\": %lld, \"ns\": %ld, \"random\": \"",
                           (long long)now.tv_sec, now.tv_nsec);
        for (int i = 0; i < 8; i++)
            len += snprintf(text + len, sizeof text - (size_t)len, "%02x", random[i]);
        len += snprintf(text + len, sizeof text - (size_t)len, "\"}");
        printf("item %llu\n", (unsigned long long)e.item);
        ls_emit(e.item, text, (uint32_t)len);
    }
}
