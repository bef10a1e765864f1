"""Events: agents run whenever they have events; an item is finished by its first EMIT."""

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.record import PEER_NONE
from lockstep.engine.schedule.base import Groups, Host, Schedule


class Events(Schedule):
    """The default policy: what an agent does not pass on itself goes nowhere."""

    def __init__(self, fleet: Fleet, host: Host, has_input: bool) -> None:
        self._host = host
        self._groups = Groups(fleet)
        self._inputs = [n for n, group in enumerate(fleet.groups) if group.input]
        self._waiting: dict[int, list[int]] = {}  # Unfinished item -> who was given it.
        self.takes_input = bool(self._inputs)
        if has_input and not self._inputs:
            raise UsageError(
                'there is input, but no [agents.NAME] has input = "broadcast" or "deal": '
                '[schedule] policy = "events", the default, must be told who gets it '
                '(a pipeline is policy = "dag")'
            )

    def admit(self, item: int, payload: bytes) -> None:
        receivers = [a for g in self._inputs for a in self._groups.receivers(g, item)]
        self._waiting[item] = receivers
        for agent in receivers:
            self._host.deliver_item(agent, item, payload, PEER_NONE, 0)

    def may_emit(self, agent: int, item: int) -> str:
        return ""

    def emitted(self, agent: int, item: int, payload: bytes) -> None:
        self._host.finish_item(item, [(agent, payload)])

    def forget(self, item: int) -> None:
        self._waiting.pop(item, None)

    def holders(self, item: int) -> list[int]:
        return self._waiting.get(item, [])
