"""Calls between agents: a message that waits for a reply with its number (docs/abi.md)."""


class CallBook:
    """Open calls. A call is open from its delivery to its reply's, or to the end of either side."""

    def __init__(self, agents: int) -> None:
        # By caller: number -> (callee, item). Insertion order is the order of delivery.
        self._made: list[dict[int, tuple[int, int]]] = [{} for _ in range(agents)]
        self._asked: list[dict[tuple[int, int], None]] = [{} for _ in range(agents)]

    def made(self, caller: int) -> dict[int, tuple[int, int]]:
        """A caller's open calls: number -> (callee, item)."""
        return self._made[caller]

    def open(self, caller: int, number: int, callee: int, item: int) -> None:
        """A call was delivered."""
        self._made[caller][number] = (callee, item)
        self._asked[callee][caller, number] = None

    def waits(self, caller: int, number: int, callee: int) -> bool:
        """Whether the caller waits for this reply from this callee."""
        found = self._made[caller].get(number)
        return found is not None and found[0] == callee

    def close(self, caller: int, number: int) -> None:
        """The reply was delivered, or the call came back."""
        callee, _ = self._made[caller].pop(number)
        del self._asked[callee][caller, number]

    def end(self, agent: int) -> list[tuple[int, int, int]]:
        """An agent ends: its own calls are forgotten; those that nobody will answer now.

        Returns:
            (caller, number, item), in the order in which they were delivered.
        """
        for number in list(self._made[agent]):
            self.close(agent, number)
        orphans = [(c, n, self._made[c][n][1]) for c, n in self._asked[agent]]
        for caller, number, _ in orphans:
            self.close(caller, number)
        return orphans
