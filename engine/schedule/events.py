"""Events: agents run whenever they have events; an item is finished by its first EMIT."""

from collections.abc import Sequence

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.record import PEER_NONE
from lockstep.engine.schedule.base import Given, Host, Schedule, names_nobody


class Events(Schedule):
    """The default policy: what an agent does not pass on itself goes nowhere.

    Who gives an item up is given it again; if it had come to it in a message, those are whom the
    item had been given to when it entered. The retries are the group's that gave it up.
    """

    def __init__(self, fleet: Fleet, host: Host, has_input: bool) -> None:
        super().__init__(fleet, host)
        self._inputs = [n for n, group in enumerate(fleet.groups) if group.input]
        self._payloads: dict[int, bytes] = {}  # Of unfinished items, as they entered.
        self.takes_input = bool(self._inputs)
        if has_input and not self._inputs:
            raise UsageError(
                'there is input, but no [agents.NAME] has input = "broadcast" or "deal": '
                '[schedule] policy = "events", the default, must be told who gets it '
                '(a pipeline is policy = "dag")'
            )

    def admit(self, item: int, payload: bytes) -> None:
        self._payloads[item] = payload
        if not self._inputs:
            self._host.fail_item(item, "no agent of the fleet takes items")
        for agent in self._receivers(item):
            if item in self._payloads:  # It is not, once one of them had ended.
                self._hand(agent, item)

    def may_emit(self, agent: int, item: int, peer: int, given_up: bool) -> str:
        return names_nobody(peer)

    def emitted(self, agent: int, item: int, payload: bytes, peer: int) -> None:
        self._host.finish_item(item, [(agent, payload)])

    def forget(self, item: int) -> None:
        super().forget(item)
        self._payloads.pop(item, None)

    def holders(self, item: int) -> list[int]:
        return self._receivers(item) if item in self._payloads else []

    def _receivers(self, item: int) -> list[int]:
        return [a for g in self._inputs for a in self._groups.receivers(g, item)]

    def _given(self, agent: int, item: int) -> Sequence[Given]:
        return [(PEER_NONE, self._payloads[item])]

    def _turn(self, agent: int, item: int) -> int:
        return self._groups.retries_of_all(item)

    def _again(self, agent: int, item: int) -> Sequence[int]:
        receivers = self._receivers(item)
        return [agent] if agent in receivers else receivers
