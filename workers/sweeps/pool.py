"""A pool of supervisor processes: so many runs at a time, in one thread."""

import selectors
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lockstep.engine.errors import LockstepError, RunStopped
from lockstep.workers.job import Job
from lockstep.workers.launch import Conversation
from lockstep.workers.sweeps.stops import Stops

INTERRUPTS_MAX = 2  # The first lets runs stop cleanly, the second ends them at once.

Outcome = dict[str, Any] | LockstepError  # The summary of a run, or why there is none.
Ended = Callable[[int, Outcome], None]
Heard = Callable[[int, str, Any], None]


class Pool:
    """Runs jobs.

    Args:
        most: So many at a time.
        stops: Its signals are passed on, and nothing is started after the first.
        heard: Called with a run's number and what its supervisor says (`workers.launch`).
        ended: Called with a run's number and what came of it.
    """

    def __init__(self, most: int, stops: Stops, heard: Heard, ended: Ended) -> None:
        self._most, self._stops = most, stops
        self._heard, self._ended = heard, ended
        self._live: dict[int, Conversation] = {}
        self._told = 0  # Signals that were passed on.

    def run(self, jobs: Iterable[tuple[int, Job]]) -> None:
        """Run all of them, in their order, until they have ended or a signal came.

        Args:
            jobs: Number and job each; the next is asked for when there is room for it.
        """
        waiting = iter(jobs)
        with selectors.DefaultSelector() as self._selector:
            self._selector.register(self._stops.descriptor, selectors.EVENT_READ)
            try:
                while self._fill(waiting):
                    self._hear()
            finally:
                for each in self._live.values():  # Left by an error: they stop cleanly.
                    each.close()

    def _fill(self, waiting: Iterator[tuple[int, Job]]) -> bool:
        """Start what there is room for. Returns whether anything runs."""
        while len(self._live) < self._most and not self._stops.count:
            following = next(waiting, None)
            if following is None:
                break
            self._start(*following)
        return bool(self._live)

    def _hear(self) -> None:
        for key, _ in self._selector.select():
            if key.data is None:
                self._stops.clear()
            elif not self._live[key.data].hear():
                self._end(key.data)
        while self._told < min(self._stops.count, INTERRUPTS_MAX):
            self._told += 1
            for each in self._live.values():
                each.interrupt()

    def _start(self, number: int, job: Job) -> None:
        try:
            made = Conversation(job, lambda what, value: self._heard(number, what, value), None)
        except OSError as error:
            why = f"no room for a supervisor process: {error.strerror}"
            self._ended(number, RunStopped(why))
            return
        self._live[number] = made
        self._selector.register(made.descriptor, selectors.EVENT_READ, number)
        made.begin()

    def _end(self, number: int) -> None:
        ended = self._live.pop(number)
        self._selector.unregister(ended.descriptor)
        ended.close()
        try:
            outcome: Outcome = ended.summary()
        except LockstepError as error:
            outcome = error
        self._ended(number, outcome)
