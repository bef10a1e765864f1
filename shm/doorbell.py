"""Doorbell: how one process wakes another. Rung after each publish, always.

A kernel object, so it is also the memory barrier between the two (`cursor`). Rings add up to one:
a bell says "look again", never how often. Waiting blocks in the kernel; nobody polls.
"""

import os
import select
import time
from abc import ABC, abstractmethod
from functools import cache

from lockstep.shm.compiled import mypyc_attr
from lockstep.shm.errors import PeerDied, RingClosed

_READ_BYTES = 65536  # A full pipe in one read.


@mypyc_attr(allow_interpreted_subclasses=True)  # shm/blocking.py has one.
class Doorbell(ABC):
    """The common face. Create it before the process on the other side is started.

    A forked process inherits it. One that is started afresh is handed its own end (`waiting`,
    `ringing`), pickled, and those descriptors under the same numbers. One process waits; any may
    ring. A signal handler that does not raise leaves a wait waiting
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
        return TrustedDoorbell() if trusted and TrustedDoorbell.works() else EventDoorbell()

    def __init__(self, descriptors: tuple[int, ...]) -> None:
        self._descriptors = descriptors
        self._poll = select.poll()
        if descriptors[0] >= 0:
            self._poll.register(descriptors[0], select.POLLIN)

    def __reduce__(self) -> tuple[object, ...]:
        """For a process that is handed the same numbers.

        Raises:
            TypeError: this kind stays in its process.
        """
        raise TypeError(f"a {type(self).__name__} cannot be handed to another process")

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
            PeerDied: nobody is left who could ring (an end alone: `waiting`).
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
        return tuple(descriptor for descriptor in self._open() if descriptor >= 0)

    def ringing_descriptors(self) -> tuple[int, ...]:
        """What a process that only rings has to keep open."""
        return self.descriptors()

    def waiting_descriptors(self) -> tuple[int, ...]:
        """What a process that only waits has to keep open."""
        return self.descriptors()

    def ringing(self) -> "Doorbell":
        """The end of who only rings, on the same descriptors: to be pickled, not to be closed."""
        return self

    def waiting(self) -> "Doorbell":
        """The end of who only waits, likewise. Its wait ends with `PeerDied` where it can."""
        return self

    def close(self) -> None:
        """Close this process's descriptors. Idempotent; the other side notices nothing."""
        descriptors, self._descriptors = self._descriptors, ()
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def _open(self) -> tuple[int, ...]:
        # A closed number may already be somebody else's: it must never reach the kernel.
        if not self._descriptors:
            raise RingClosed("doorbell: this side closed it")
        return self._descriptors


class EventDoorbell(Doorbell):
    """A Linux eventfd: one descriptor, 5.5 us for a round trip."""

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        super().__init__((descriptor,))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._open()

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

    def __init__(self, descriptor: int | None = None) -> None:
        super().__init__(os.eventfd(0, os.EFD_CLOEXEC) if descriptor is None else descriptor)
        self._rings = [bytearray(8)]

    @classmethod
    @cache
    def works(cls) -> bool:
        """Whether this kernel reads an eventfd without waiting when asked to (Linux 5.8)."""
        if not hasattr(os, "RWF_NOWAIT"):
            return False
        bell = cls()
        try:
            return not bell.clear()
        except OSError:
            return False
        finally:
            bell.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        if timeout_s is not None or not self._descriptors:
            return super().wait(timeout_s)
        os.readv(self._descriptors[0], self._rings)  # os.eventfd_read ends with any signal.
        return True

    def clear(self) -> bool:
        try:
            os.preadv(self._open()[0], self._rings, -1, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        return True


class PipeDoorbell(Doorbell):
    """A pipe, where there is no eventfd.

    Who made it keeps both ends, so that EPIPE cannot happen. A process that is handed one end alone
    learns by it that everybody at the other is gone: there the kernel kills no orphans.

    Args:
        ends: Its reading and its writing end, -1 where there is none; None: a new pipe.
    """

    def __init__(self, ends: tuple[int, int] | None = None) -> None:
        if ends is None:
            ends = os.pipe()
            for descriptor in ends:
                os.set_blocking(descriptor, False)
        super().__init__(ends)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._open(),)

    def ring(self) -> None:
        try:
            os.write((self._descriptors or self._open())[1], b"\0")
        except BlockingIOError:
            pass  # The pipe is full of rings: it is rung.

    def clear(self) -> bool:
        rung = False
        try:
            # A short read has emptied the pipe: no second one to learn that nothing is there.
            while (size := len(os.read(self._open()[0], _READ_BYTES))) == _READ_BYTES:
                rung = True
        except BlockingIOError:
            return rung
        if not size and not rung:
            raise PeerDied("doorbell: nobody is left who could ring it")
        return True

    def ringing_descriptors(self) -> tuple[int, ...]:
        return self._open()[1:]

    def waiting_descriptors(self) -> tuple[int, ...]:
        return self._open()[:1]

    def ringing(self) -> Doorbell:
        return type(self)((-1, self._open()[1]))

    def waiting(self) -> Doorbell:
        return type(self)((self._open()[0], -1))


class SharedDoorbell(PipeDoorbell):
    """One bell that many processes ring and one waits for.

    A pipe, also where there is an eventfd: who holds an eventfd to ring it could read it, too, and
    so take the rings of all others away. Here ringers hold the writing end only, and the worst that
    one of them can do is to ring for nothing. EPIPE cannot happen while the waiter lives, and its
    children die with it.
    """
