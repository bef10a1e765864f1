"""Snapshots of agents, as the supervisor keeps them: who has room for them, and where each begins.

Every process of an agent writes to the same store; the supervisor makes it before the first one
and reads it when one is dead. They are a help, no more: an agent without one, or with one that
does not serve, repeats its turns from the first.
"""

from collections.abc import Iterable

import numpy as np

from lockstep.engine.fleet import Fleet
from lockstep.workers import room
from lockstep.workers.agent.keeper import Keeper
from lockstep.workers.agent.snapshot import PAGE_BYTES, Held, Store

REHEARSED_TURNS = 20  # As `rehearsal.TURNS`.


class Snapshots:
    """The stores of one run. `close` ends them.

    Args:
        fleet: Whose agents they are; ``snapshot_turns`` of its [recovery] says how often.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._every = fleet.recovery.snapshot_turns
        self._stores: dict[int, Store] = {}
        # By agent: turn that had arrived, and first.
        self._asked: dict[int, tuple[int, int]] = {}
        self._begun: dict[int, tuple[int, int]] = {}

    def prepare(self, indices: Iterable[int]) -> None:
        """Make room for the snapshots of these agents, if there are descriptors for all of them.

        Args:
            indices: Of agents that can be snapshot.
        """
        found = list(indices) if self._every else []
        sockets = sum(source.kind == "socket" for source in self._fleet.sources)
        if not room.raise_descriptor_limit(len(self._fleet.agents), sockets, len(found)):
            return
        for index in found:
            group = self._fleet.groups[self._fleet.agents[index].group]
            self._stores[index] = Store.create(group.memory_bytes_max)
        if found:
            rehearse()

    def first_turn(self, index: int, arrived: int) -> int:
        """Number of the first turn that an agent's next process runs; 0: there is no snapshot.

        It may be asked more than once: the process begins with `keeper`.

        Its last turn is repeated in any case, so that somebody sees that it is the same agent.
        Who died again without a turn in between begins with turn 0: perhaps it was the snapshot.
        The time after that it may be its turn again.

        Args:
            index: The agent.
            arrived: Number of the last turn that has arrived from it, -1: none.
        """
        store = self._stores.get(index)
        newest = None if store is None else store.newest(arrived - 1)
        first = 0 if newest is None else newest + 1
        if self._begun.get(index) == (arrived, first):
            first = 0
        self._asked[index] = arrived, first
        return first

    def keeper(self, index: int, first: int) -> Keeper | None:
        """What an agent's process is given; None: no snapshots are taken of it.

        Args:
            index: The agent.
            first: The first turn that it runs.
        """
        store = self._stores.get(index)
        if store is None:
            return None
        if index in self._asked:
            self._begun[index] = self._asked.pop(index)
        return Keeper(store, self._every, first - 1 if first else None)

    def descriptors(self, index: int) -> list[int]:
        """What an agent's process keeps open for them."""
        store = self._stores.get(index)
        return [] if store is None else [store.descriptor]

    def close(self) -> None:
        """Give their memory back. Idempotent."""
        for store in self._stores.values():
            store.close()
        self._stores.clear()


def rehearse() -> None:
    """Take some snapshots here, before the fork: what the first ones change is shared then."""
    store, memory = Store.create(PAGE_BYTES), np.ones((1, PAGE_BYTES // 8), np.uint64)
    for turn in range(REHEARSED_TURNS):
        store.write(Held(turn, PAGE_BYTES, (), 0, 0, frozenset()), memory)
    store.close()
