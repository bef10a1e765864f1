"""Spawner: how children are started, by fork or as fresh processes; chosen with the platform.

What a child does is a callable. A forked one is called as it is, with all that this process has in
memory. A fresh interpreter gets it pickled: whatever it holds of shared memory and of bells says
itself how it is found again on the other side.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from lockstep import shm
from lockstep.engine.errors import UsageError
from lockstep.workers import spawn
from lockstep.workers.spawn import Birth, Child


class Spawner(ABC):
    """The common face."""

    @abstractmethod
    def start(self, name: str, body: Callable[[], int], keep: Sequence[int]) -> Child:
        """As `spawn.fork`."""

    def start_all(self, births: Sequence[Birth], born: list[Child]) -> None:
        """As `spawn.fork_all`."""
        for birth in births:
            born.append(self.start(birth.name, birth.body, birth.keep))

    def settle_memory(self) -> None:
        """Before starting many."""


class Forking(Spawner):
    """Children share the memory of this process as it is when they are forked."""

    def start(self, name: str, body: Callable[[], int], keep: Sequence[int]) -> Child:
        return spawn.fork(name, body, keep)

    def start_all(self, births: Sequence[Birth], born: list[Child]) -> None:
        spawn.fork_all(births, born)

    def settle_memory(self) -> None:
        spawn.settle_memory()


class Fresh(Spawner):
    """Each child is an interpreter of its own: 0.2 s and 24 MB, on any system that has Python."""

    def start(self, name: str, body: Callable[[], int], keep: Sequence[int]) -> Child:
        from lockstep.workers.fresh import start  # Of no use where children are forked.

        return start(name, body, keep)


def spawner_of(platform: shm.Platform) -> Spawner:
    """What belongs to a platform."""
    return Forking() if platform.forks else Fresh()


def platform_for(name: str, tools: bool) -> shm.Platform:
    """The platform that a run asks for.

    Args:
        name: As in `Job`.
        tools: The run has tools.

    Raises:
        UsageError: there is no such platform, not on this system, or not for this run.
    """
    try:
        platform = shm.platform_of(name)
    except ValueError as error:
        raise UsageError(f"LOCKSTEP_PLATFORM: {error}; nothing was started") from None
    if tools and not platform.forks:
        raise UsageError(
            f"[tools]: the platform {platform.name!r} cannot run tools yet; nothing was started"
        )
    return platform
