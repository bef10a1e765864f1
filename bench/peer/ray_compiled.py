"""Ray compiled graph: one execute and get of a graph of one actor."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import Any

DATA = bytes(64)


class Echo:
    """The actor: answers with what it got."""

    def answer(self, data: bytes) -> bytes:
        """The same."""
        return data


def start(stack: ExitStack) -> tuple[dict[str, str], Callable[[int], list[int]]]:
    """Start Ray on this machine and compile the graph."""
    ray: Any = import_module("ray")
    dag: Any = import_module("ray.dag")
    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=2)
    stack.callback(ray.shutdown)
    actor = ray.remote(Echo).remote()
    with dag.InputNode() as given:
        graph = actor.answer.bind(given).experimental_compile()
    stack.callback(graph.teardown)

    def turns(count: int) -> list[int]:
        times = []
        for _ in range(count):
            begun = time.perf_counter_ns()
            answer = ray.get(graph.execute(DATA))
            times.append(time.perf_counter_ns() - begun)
            assert answer == DATA
        return times

    turns(1)
    return {"ray": ray.__version__}, turns
