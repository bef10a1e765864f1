"""Groups: who of a group of the fleet gets an item, and how often it may be given again.

Everything kept here is per item and gone with `forget`.
"""

from collections.abc import Callable

from lockstep.engine.fleet import Fleet


class Groups:
    """Which agents are in which group, dealing, and retries.

    Attributes:
        members: Agents of each group, in file order.
        of: Group of each agent.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.members: list[list[int]] = [[] for _ in fleet.groups]
        self.of = [agent.group for agent in fleet.agents]
        for agent in fleet.agents:
            self.members[agent.group].append(agent.index)
        self._dealt = [group.input == "deal" for group in fleet.groups]
        self._retries_max = [group.retries for group in fleet.groups]
        self._moved: dict[int, dict[int, list[int]]] = {}  # Item -> group -> another replica.
        self._retries: dict[int, dict[int, int]] = {}  # Item -> group -> times given again.

    def receivers(self, group: int, item: int) -> list[int]:
        """The agents of a group that get an item: all, or the one it is dealt to."""
        members = self.members[group]
        if not self._dealt[group]:
            return members
        if item in self._moved and group in self._moved[item]:
            return self._moved[item][group]
        place = (item - 1) % len(members)
        return members[place : place + 1]

    def count(self, group: int) -> int:
        """How many agents of a group get an item."""
        return 1 if self._dealt[group] else len(self.members[group])

    def another(self, agent: int, is_alive: Callable[[int], bool]) -> int | None:
        """The next living replica after an agent of a dealt group, round the group."""
        group = self.of[agent]
        if not self._dealt[group]:
            return None
        members = self.members[group]
        place = members.index(agent)
        others = members[place + 1 :] + members[:place]
        return next((other for other in others if is_alive(other)), None)

    def move(self, item: int, replica: int) -> None:
        """Deal an item to another replica of the group."""
        self._moved.setdefault(item, {})[self.of[replica]] = [replica]

    def may_retry(self, group: int, item: int) -> bool:
        """Take one of the group's retries of an item; False: none is left."""
        used = self.retries(group, item)
        if used >= self._retries_max[group]:
            return False
        self._retries.setdefault(item, {})[group] = used + 1
        return True

    def retries(self, group: int, item: int) -> int:
        """How often an item was given to the group again."""
        return self._retries.get(item, {}).get(group, 0)

    def retries_of_all(self, item: int) -> int:
        """How often an item was given again, to whomever."""
        return sum(self._retries.get(item, {}).values())

    def forget(self, item: int) -> None:
        """The item is finished or failed."""
        self._moved.pop(item, None)
        self._retries.pop(item, None)
