"""Signals that stop a sweep: counted, where they would otherwise fall between any two lines."""

import os
import signal
import threading
from types import TracebackType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stops:
    """Takes the signals for the length of a ``with``. One that is ignored stays ignored.

    Only the main thread gets signals: in another one nothing comes.

    Attributes:
        count: Signals so far.
        descriptor: Readable when one came: for a poll.
    """

    def __enter__(self) -> "Stops":
        self.count = 0
        self.descriptor, self._writing = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writing, False)
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
            self._before = {
                number: signal.signal(number, self._arrived)
                for number in NUMBERS
                if signal.getsignal(number) is not signal.SIG_IGN
            }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._main:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup)
        os.close(self.descriptor)
        os.close(self._writing)

    def clear(self) -> None:
        """Empty the wake-up pipe."""
        try:
            while os.read(self.descriptor, 512):
                pass
        except BlockingIOError:
            pass

    def _arrived(self, _number: int, _frame: object) -> None:
        self.count += 1
