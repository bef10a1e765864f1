"""The parent: who started this supervisor, and how it says that the run is to stop."""

import os
import select
from collections.abc import Collection

from lockstep.workers.signals import Signals

_PIPE = 0  # Our standard input. The parent holds its other end, and closes it by its death.


class Parent:
    """Signals and the parent's pipe.

    Attributes:
        descriptors: Readable when it may have said something: for a poll.
    """

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._gone = False
        self.descriptors = (_PIPE, signals.descriptor)
        self._poll = select.poll()
        for descriptor in self.descriptors:
            self._poll.register(descriptor, select.POLLIN)

    def look(self) -> bool:
        """As `heard`, of what is readable now."""
        return self.heard([descriptor for descriptor, _ in self._poll.poll(0)])

    def heard(self, ready: Collection[int]) -> bool:
        """Take what came in; whether the run is to stop: a signal came, or it is gone.

        Args:
            ready: Descriptors that are readable; others are left alone.
        """
        if self._signals.descriptor in ready:
            self._signals.clear()
        if _PIPE in ready and not os.read(_PIPE, 4096):
            self._gone = True
        return self._signals.count > 0 or self._gone
