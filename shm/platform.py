"""Platform: which implementation of `Segment`, `Doorbell` and `Arena` a run uses, chosen once.

Linux forks: slices of one sealed, unnamed segment are inherited, bells are eventfds. The portable
one asks for what every POSIX system has: named segments, pipes, and children that are fresh
processes and attach by name. What is computed does not depend on it, so it is no part of a run's
identity. How children are started is the layer above's (`workers.spawner`); `Cursor` is the same.
"""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence

import posix_ipc

from lockstep.shm import claims, identity, segment
from lockstep.shm.arena import Arena
from lockstep.shm.board import Board
from lockstep.shm.doorbell import Doorbell, PipeDoorbell
from lockstep.shm.segment import Segment


class Platform(ABC):
    """The common face. `close` at the end of a run.

    Attributes:
        name: "linux" or "portable".
        forks: Children are forked, and inherit memory.
        agent_descriptors: What each agent costs the supervisor.
        slices_named: Slices lie where named shared memory does (Linux: /dev/shm).
    """

    name: str
    forks: bool
    agent_descriptors: int
    slices_named: bool

    @abstractmethod
    def sweep(self) -> list[str]:
        """Remove what dead processes left; the names."""

    @abstractmethod
    def arena(self, slice_bytes: Sequence[int]) -> Arena:
        """As `Arena.create`."""

    @abstractmethod
    def board(self, agents: int) -> Board:
        """As `Board.create`, under a name of its own."""

    @abstractmethod
    def doorbell(self, *, trusted: bool = False) -> Doorbell:
        """A bell with one waiter and one ringer. Args as of `Doorbell.create`."""

    def close(self) -> None:
        """Nothing of it is needed any more. Idempotent."""


class LinuxPlatform(Platform):
    """fork, memfd, eventfd, madvise."""

    name = "linux"
    forks = True
    agent_descriptors = 2  # Its doorbell and a pidfd.
    slices_named = not hasattr(os, "memfd_create")

    def sweep(self) -> list[str]:
        return identity.sweep()

    def arena(self, slice_bytes: Sequence[int]) -> Arena:
        return Arena.create(slice_bytes)

    def board(self, agents: int) -> Board:
        return Board.create(identity.next_name(), agents)

    def doorbell(self, *, trusted: bool = False) -> Doorbell:
        return Doorbell.create(trusted=trusted)


class PortablePlatform(Platform):
    """shm_open, pipes, flock."""

    name = "portable"
    forks = False
    agent_descriptors = 4  # Both ends of its bell, a pipe that ends with it, and a mapping's.
    slices_named = True

    def __init__(self) -> None:
        self._claims: claims.Claims | None = None

    def sweep(self) -> list[str]:
        return claims.sweep()

    def arena(self, slice_bytes: Sequence[int]) -> Arena:
        return Arena.create_named(slice_bytes, self._segment)

    def board(self, agents: int) -> Board:
        return Board.create(self._name(), agents, make_named)

    def doorbell(self, *, trusted: bool = False) -> Doorbell:
        return PipeDoorbell()

    def close(self) -> None:
        if self._claims is not None:
            self._claims.close()
            self._claims = None

    def _name(self) -> str:
        if self._claims is None:
            self._claims = claims.Claims()
        return self._claims.next_name()

    def _segment(self, size_bytes: int) -> Segment:
        return make_named(self._name(), size_bytes)


def make_named(name: str, size_bytes: int) -> Segment:
    """A new, zeroed segment, by what every POSIX system has.

    Raises:
        FileExistsError, SegmentFull: as `segment.create`.
    """
    descriptor = segment.open_new(name, size_bytes)
    whole = False
    try:
        if hasattr(os, "posix_fallocate"):
            segment.reserve(descriptor, name, size_bytes)
        else:
            os.ftruncate(descriptor, size_bytes)  # There it lies in no file system to be full.
        made = segment.mapped(descriptor, name, size_bytes, inherited=False)
        whole = True
    finally:
        os.close(descriptor)
        if not whole:
            posix_ipc.unlink_shared_memory(name)
    return made


PLATFORMS = {kind.name: kind for kind in (LinuxPlatform, PortablePlatform)}


def platform_of(name: str = "") -> Platform:
    """The platform of that name; empty: the best one that this system has.

    Raises:
        ValueError: there is none of that name, or this system lacks what it needs.
    """
    if not name:
        name = "linux" if sys.platform == "linux" else "portable"
    kind = PLATFORMS.get(name)
    if kind is None:
        raise ValueError(f"platform {name!r}, expected one of {', '.join(PLATFORMS)}")
    if kind is LinuxPlatform and sys.platform != "linux":
        raise ValueError(f"platform 'linux' on {sys.platform}: it needs Linux; 'portable' does not")
    return kind()
