"""What this machine asks for waking a process: the floor under every turn.

A turn between two agents holds two wake-ups (the supervisor's and the next agent's). Where cores
sleep deeply, as virtual ones may, that alone can be most of it.
"""

import os
import subprocess
import sys
import time

ROUNDS = 4_000
WARM_ROUNDS = 200

_ECHO = """
import os, sys
there, back, rounds = map(int, sys.argv[1:])
for _ in range(rounds):
    os.eventfd_read(there)
    os.eventfd_write(back, 1)
"""


def wakes_ns() -> list[int]:
    """Times of single wake-ups, ns: half of each round trip between two processes."""
    there, back = os.eventfd(0, os.EFD_CLOEXEC), os.eventfd(0, os.EFD_CLOEXEC)
    rounds = WARM_ROUNDS + ROUNDS
    command = [sys.executable, "-c", _ECHO, str(there), str(back), str(rounds)]
    times: list[int] = []
    with subprocess.Popen(command, pass_fds=(there, back)) as echo:
        try:
            for _ in range(rounds):
                began = time.perf_counter_ns()
                os.eventfd_write(there, 1)
                os.eventfd_read(back)
                times.append((time.perf_counter_ns() - began) // 2)
        finally:
            echo.kill()
            os.close(there)
            os.close(back)
    return times[WARM_ROUNDS:]
