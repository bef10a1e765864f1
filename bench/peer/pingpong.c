/* Two processes wake each other by eventfds that they block on: the limit of a blocked round trip.
 *
 * pingpong N: prints the nanoseconds of each of N round trips, one per line.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void ring(int bell) {
    uint64_t one = 1;
    if (write(bell, &one, 8) != 8) _exit(1);
}

static void await(int bell) {
    uint64_t rings;
    if (read(bell, &rings, 8) != 8) _exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int main(int argc, char **argv) {
    long rounds = argc > 1 ? atol(argv[1]) : 0;
    int there = eventfd(0, EFD_CLOEXEC), back = eventfd(0, EFD_CLOEXEC);
    uint64_t *times = calloc(rounds > 0 ? (size_t)rounds : 1, sizeof *times);
    if (rounds < 1 || there < 0 || back < 0 || !times) return 2;
    pid_t child = fork();
    if (child < 0) return 2;
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (long n = 0; n < rounds; n++) {
            await(there);
            ring(back);
        }
        _exit(0);
    }
    for (long n = 0; n < rounds; n++) {
        uint64_t begun = now_ns();
        ring(there);
        await(back);
        times[n] = now_ns() - begun;
    }
    waitpid(child, NULL, 0);
    for (long n = 0; n < rounds; n++) printf("%llu\n", (unsigned long long)times[n]);
    return 0;
}
