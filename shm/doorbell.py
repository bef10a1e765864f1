"""Doorbell: how one process wakes another. Rung after each publish, always.

A kernel object, so it is also the memory barrier between the two (`cursor`). Rings add up to one:
a bell says "look again", never how often. Waiting blocks in the kernel; nobody polls.
"""

import os
import select
import time
from abc import ABC, abstractmethod

from lockstep.shm.errors import RingClosed

_READ_BYTES = 65536  # A full pipe in one read.


class Doorbell(ABC):
    """The common face. Create it before the fork that both sides come from.

    One process waits; any may ring. A signal handler that does not raise leaves a wait waiting
    (PEP 475): who must hear signals puts `fileno` into its own selector beside a wake-up pipe.
    """

    @staticmethod
    def create(*, trusted: bool = False) -> "Doorbell":
        """The best kind that this system has.

        Args:
            trusted: Both sides may trust one another as `TrustedDoorbell` says.
        """
        if not hasattr(os, "eventfd"):
            return PipeDoorbell()
        return TrustedDoorbell() if trusted and hasattr(os, "RWF_NOWAIT") else EventDoorbell()

    def __init__(self, descriptors: tuple[int, ...]) -> None:
        self._descriptors = descriptors
        self._poll = select.poll()
        self._poll.register(descriptors[0], select.POLLIN)

    @abstractmethod
    def ring(self) -> None:
        """Wake the waiter, now or when it waits next. Never blocks. All stores before it count."""

    @abstractmethod
    def clear(self) -> bool:
        """Take all rings so far; whether there was one. Never blocks. Clear first, then drain."""

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until rung, then clear.

        Args:
            timeout_s: Seconds; None waits for ever (the normal case), 0 only looks.

        Returns:
            False if the time ran out.

        Raises:
            RingClosed: this side closed the bell.
        """
        if timeout_s is None:
            # Who waits for ever mostly comes before the ring: no look in vain first.
            if not self._descriptors:
                self._open()
            self._poll.poll()
            while not self.clear():
                self._poll.poll()
            return True
        deadline_s = time.monotonic() + timeout_s
        while not self.clear():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            # Up, or a wait of the last 0.9 ms would spin.
            self._poll.poll(int(left_s * 1000) + 1)
        return True

    def fileno(self) -> int:
        """For a selector: readable while rung."""
        return self._open()[0]

    def descriptors(self) -> tuple[int, ...]:
        """All descriptors: what a child must keep open, or close if the bell is not its own."""
        return self._open()

    def ringing_descriptors(self) -> tuple[int, ...]:
        """What a process that only rings has to keep open."""
        return self.descriptors()

    def close(self) -> None:
        """Close this process's descriptors. Idempotent; the other side notices nothing."""
        descriptors, self._descriptors = self._descriptors, ()
        for descriptor in descriptors:
            os.close(descriptor)

    def _open(self) -> tuple[int, ...]:
        # A closed number may already be somebody else's: it must never reach the kernel.
        if not self._descriptors:
            raise RingClosed("doorbell: this side closed it")
        return self._descriptors


class EventDoorbell(Doorbell):
    """A Linux eventfd: one descriptor, 5.5 us for a round trip."""

    def __init__(self) -> None:
        super().__init__((os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC),))

    def wait(self, timeout_s: float | None = None) -> bool:
        if timeout_s is not None or not self._descriptors:
            return super().wait(timeout_s)
        descriptor, poll = self._descriptors[0], self._poll.poll
        while True:  # As there, with fewer steps: it is half of what a wake-up costs.
            poll()
            try:
                os.eventfd_read(descriptor)
                return True
            except BlockingIOError:
                pass

    def ring(self) -> None:
        try:
            os.eventfd_write((self._descriptors or self._open())[0], 1)
        except BlockingIOError:
            pass  # 2**64 - 2 rings are waiting: it is rung.

    def clear(self) -> bool:
        try:
            os.eventfd_read((self._descriptors or self._open())[0])
        except BlockingIOError:
            return False
        return True


class TrustedDoorbell(EventDoorbell):
    """An eventfd that the waiter blocks on itself: one system call for a wait, not two.

    Whether reading and writing block is one property of an eventfd, for both sides. So who fills
    its counter up, which takes 2**64 - 2 rings or one hostile write, makes the other side's next
    ring wait. Between processes that trust one another with that.
    """

    def __init__(self) -> None:
        Doorbell.__init__(self, (os.eventfd(0, os.EFD_CLOEXEC),))
        self._rings = [bytearray(8)]

    def wait(self, timeout_s: float | None = None) -> bool:
        if timeout_s is not None or not self._descriptors:
            return super().wait(timeout_s)
        os.eventfd_read(self._descriptors[0])
        return True

    def clear(self) -> bool:
        try:
            os.preadv(self._open()[0], self._rings, -1, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        return True


class PipeDoorbell(Doorbell):
    """A pipe, where there is no eventfd. Both processes keep both ends: EPIPE cannot happen."""

    def __init__(self) -> None:
        descriptors = os.pipe()
        for descriptor in descriptors:
            os.set_blocking(descriptor, False)
        super().__init__(descriptors)

    def ring(self) -> None:
        try:
            os.write((self._descriptors or self._open())[1], b"\0")
        except BlockingIOError:
            pass  # The pipe is full of rings: it is rung.

    def clear(self) -> bool:
        rung = False
        try:
            # A short read has emptied the pipe: no second one to learn that nothing is there.
            while len(os.read(self._open()[0], _READ_BYTES)) == _READ_BYTES:
                rung = True
            rung = True
        except BlockingIOError:
            pass
        return rung


class SharedDoorbell(PipeDoorbell):
    """One bell that many processes ring and one waits for.

    A pipe, also where there is an eventfd: who holds an eventfd to ring it could read it, too, and
    so take the rings of all others away. Here ringers hold the writing end only, and the worst that
    one of them can do is to ring for nothing. EPIPE cannot happen while the waiter lives, and its
    children die with it.
    """

    def ringing_descriptors(self) -> tuple[int, ...]:
        return self.descriptors()[1:]
