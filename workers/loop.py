"""The event loop of one thread: descriptors and wall-clock timers, each with its handler.

Every handler takes what is there and returns. One may be called for nothing (its descriptor's
number was given away within a batch), so none may block.
"""

import errno
import heapq
import math
import os
import select
import stat
import time
from collections.abc import Callable, Iterable

Handler = Callable[[], None]
FOR_EVER_S = -1.0


class Timer:
    """A handler that waits for its time.

    Attributes:
        at_s: When, of the monotonic clock.
        number: Timers of one instant go in the order in which they were set.
        handler: None once it was called or is wanted no more.
    """

    __slots__ = ("at_s", "handler", "number")

    def __init__(self, at_s: float, number: int, handler: Handler) -> None:
        self.at_s = at_s
        self.number = number
        self.handler: Handler | None = handler

    def __lt__(self, other: "Timer") -> bool:
        return (self.at_s, self.number) < (other.at_s, other.number)

    def cancel(self) -> None:
        """It is wanted no more."""
        self.handler = None


class _Poll:
    """poll(2), with the face of epoll: for systems that have no epoll."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.modify = self._poll.modify
        self.unregister = self._poll.unregister

    def register(self, descriptor: int, events: int) -> None:
        """As epoll's, which refuses what is always ready."""
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        self._poll.register(descriptor, events)

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        """As epoll's: seconds, negative for ever. Rounded up, or a short wait would spin."""
        return self._poll.poll(None if timeout_s < 0 else math.ceil(timeout_s * 1000))

    def close(self) -> None:
        """There is nothing to close."""


class Loop:
    """Use: `wait`, then `dispatch` what it gave (the order is the caller's), again and again."""

    def __init__(self) -> None:
        self._poll = select.epoll() if hasattr(select, "epoll") else _Poll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[Timer] = []
        self._number = 0

    def watch(self, descriptor: int, handler: Handler, events: int = select.POLLIN) -> None:
        """Call ``handler`` whenever the descriptor is ready (or broken).

        Raises:
            PermissionError: it is a regular file or the like, which is always ready.
        """
        self._poll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events of a watched descriptor."""
        self._poll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Watch it no more: before it is closed. Nothing to one that is not watched."""
        if self._handlers.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def watches(self, descriptor: int) -> bool:
        """Whether it is watched."""
        return descriptor in self._handlers

    def after(self, seconds: float, handler: Handler) -> Timer:
        """Call ``handler`` once, so many seconds from now at the earliest."""
        self._number += 1
        timer = Timer(time.monotonic() + seconds, self._number, handler)
        heapq.heappush(self._timers, timer)
        return timer

    def wait(self, timeout_s: float = FOR_EVER_S) -> list[int]:
        """Block until something is ready or due; the descriptors that are ready."""
        while self._timers and self._timers[0].handler is None:
            heapq.heappop(self._timers)
        if self._timers:
            left_s = max(self._timers[0].at_s - time.monotonic(), 0.0)
            timeout_s = left_s if timeout_s < 0 else min(left_s, timeout_s)
        return [descriptor for descriptor, _ in self._poll.poll(timeout_s)]

    def dispatch(self, ready: Iterable[int]) -> None:
        """Call the handlers of ``ready``, then those of the timers that are due."""
        for descriptor in ready:
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler()
        if self._timers and self._timers[0].at_s <= (now_s := time.monotonic()):
            self._fire(now_s)

    def turn(self, timeout_s: float = FOR_EVER_S) -> None:
        """`wait`, then `dispatch`."""
        self.dispatch(self.wait(timeout_s))

    def close(self) -> None:
        """Close the poll; the descriptors stay open."""
        self._poll.close()

    def _fire(self, now_s: float) -> None:
        # Those due now, not those that a handler sets for "at once": descriptors get their turn.
        due: list[Timer] = []
        while self._timers and self._timers[0].at_s <= now_s:
            due.append(heapq.heappop(self._timers))
        for timer in due:
            handler, timer.handler = timer.handler, None
            if handler is not None:
                handler()
