"""Tool calls: numbered in tag order, each answered once, each agent's waits known."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a host command. ``number`` counts from 1 over the whole run."""

    number: int
    agent: int
    request: int  # The guest's own number for it; free again once the answer was delivered.
    item: int
    tool: int


class ToolBook:
    """Every tool call from its number to its delivery."""

    def __init__(self, agents: int) -> None:
        self.issued = 0
        self._unanswered: dict[int, ToolCall] = {}
        self._undelivered: dict[int, ToolCall] = {}
        self._open: list[dict[int, ToolCall]] = [{} for _ in range(agents)]

    def issue(self, agent: int, request: int, item: int, tool: int) -> ToolCall:
        """Give the next number."""
        self.issued += 1
        call = ToolCall(self.issued, agent, request, item, tool)
        self._unanswered[call.number] = self._undelivered[call.number] = call
        self._open[agent][request] = call
        return call

    def answer(self, number: int) -> ToolCall | None:
        """The call was answered or cancelled; None when that was so before."""
        return self._unanswered.pop(number, None)

    def deliver(self, number: int) -> None:
        """The answer reaches its guest now; its request number is free again."""
        call = self._undelivered.pop(number)
        del self._open[call.agent][call.request]

    def open(self, agent: int) -> dict[int, ToolCall]:
        """Calls whose answer the agent has not seen, by request number."""
        return self._open[agent]

    def unanswered(self) -> list[ToolCall]:
        """Calls without an answer, by number: they hold the end of the run."""
        return list(self._unanswered.values())

    def waiting(self) -> bool:
        """Whether any call has no answer yet."""
        return bool(self._unanswered)
