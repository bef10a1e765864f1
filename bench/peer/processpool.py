"""concurrent.futures: one submit to a pool of one process, and its result."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from platform import python_version

DATA = bytes(64)


def start(stack: ExitStack) -> tuple[dict[str, str], Callable[[int], list[int]]]:
    """Start the pool; `bytes` answers its argument, without a module of ours to import."""
    pool = stack.enter_context(ProcessPoolExecutor(1))

    def turns(count: int) -> list[int]:
        times = []
        for _ in range(count):
            begun = time.perf_counter_ns()
            answer = pool.submit(bytes, DATA).result()
            times.append(time.perf_counter_ns() - begun)
            assert answer == DATA
        return times

    return {"python": python_version()}, turns
