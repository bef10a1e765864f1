"""Edges: which group comes after which, by number of group. Lists are in file order."""

from collections.abc import Sequence

from lockstep.engine.fleet import AgentGroup


class Edges:
    """The graph of a dag. The names exist; that nothing goes in a circle is checked elsewhere.

    Attributes:
        after: Predecessors of each group. File order, not the order of the list: a join's events
            come in file order (rule 13).
        next: Successors of each group.
        back: Groups that each may send an item back to.
    """

    def __init__(self, groups: Sequence[AgentGroup]) -> None:
        index = {group.name: n for n, group in enumerate(groups)}
        self.after = [sorted(index[name] for name in group.after) for group in groups]
        self.back = [sorted(index[name] for name in group.back) for group in groups]
        self.next: list[list[int]] = [[] for _ in groups]
        for group, predecessors in enumerate(self.after):
            for predecessor in predecessors:
                self.next[predecessor].append(group)

    def reach(self, group: int) -> list[int]:
        """The group itself and every group behind it."""
        seen = {group: None}
        queue = [group]
        for reached in queue:
            for successor in self.next[reached]:
                if successor not in seen:
                    seen[successor] = None
                    queue.append(successor)
        return sorted(queue)
