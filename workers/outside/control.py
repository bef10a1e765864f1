"""The control socket: a person says something to a run that goes on.

JSON lines over a Unix socket in the run folder; each is answered with one line of JSON.

    {"do": "cancel", "by": "ann"}                   the whole run
    {"do": "cancel", "item": "a", "by": "ann"}      an item, by its id
    {"do": "cancel", "ticket": 17}                  a request, by its ticket
    {"do": "cancel", "source": "chat"}              a source: no more will come from it
    -> {"ok": true, "event": 3, "tag": "12.0"}      number of the outside event and where it acts
    -> {"error": "no item has the id \\"b\\""}
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lockstep.engine.outside import What
from lockstep.engine.settings import nearest
from lockstep.engine.strict_json import loads
from lockstep.workers.folder import CONTROL
from lockstep.workers.loop import Loop
from lockstep.workers.outside.gate import Gate, Told
from lockstep.workers.outside.ids import IdUnknown, ItemIds
from lockstep.workers.outside.lines import Answer, LineServer, accepted

LINE_BYTES_MAX = 4096
IDLE_S = 60.0
BY_CHARS_MAX = 100
TARGETS = ("item", "ticket", "source")


class State(Protocol):
    """What of a run is asked before something is brought in."""

    def item_open(self, number: int) -> bool:
        """Whether an item is unfinished, also one that has not entered yet."""

    def ticket_open(self, number: int) -> bool:
        """Whether a request was given this ticket and waits for its answer."""


class Control:
    """The control socket of one run."""

    def __init__(
        self,
        loop: Loop,
        gate: Gate,
        folder: Path,
        ids: ItemIds,
        state: State,
        close_source: Callable[[str, Told], None],
    ) -> None:
        """Listen.

        Args:
            loop: Of the supervisor.
            gate: Where commands go in.
            folder: Of the run.
            ids: Of every item.
            state: Of the run now.
            close_source: `workers.outside.sources.Sources.cancel`.

        Raises:
            OSError: the socket cannot be made.
        """
        self._gate, self._ids, self._state = gate, ids, state
        self._close_source = close_source
        self._server = LineServer(loop, folder, CONTROL, LINE_BYTES_MAX, self.hear, idle_s=IDLE_S)

    def close(self) -> None:
        """The run is over."""
        self._server.close()

    def hear(self, line: bytes, answer: Answer) -> None:
        """A command, from whoever may give one."""
        try:
            self._do(_command(line), partial(accepted, answer))
        except (ValueError, IdUnknown) as error:
            answer.give({"error": str(error)})

    def _do(self, command: dict[str, Any], told: Told) -> None:
        by = command["by"]
        if "item" in command:
            number = self._ids.find(command["item"])
            if not self._state.item_open(number):
                raise ValueError(f"item {command['item']} is finished already")
            self._gate.bring(What.CANCEL_ITEM, number, by, told=told)
        elif "ticket" in command:
            ticket = command["ticket"]
            if not self._state.ticket_open(ticket):
                raise ValueError(f"no request waits under ticket {ticket}")
            self._gate.bring(What.CANCEL_REQUEST, ticket, by, told=told)
        elif "source" in command:
            self._close_source(command["source"], told)
        else:
            self._gate.bring(What.CANCEL_RUN, 0, by, told=told)


def _command(line: bytes) -> dict[str, Any]:
    """A checked command; ``by`` is what the history will say, as bytes.

    Raises:
        ValueError: it is none.
    """
    command = loads(line)
    if not isinstance(command, dict):
        raise ValueError(f"found {line[:40]!r}, expected a JSON object")
    if command.get("do") != "cancel":
        found = str(command.get("do"))[:40]
        raise ValueError(f"do is {found!r}{nearest(found, ['cancel'])}")
    for key in command:
        if key not in ("do", "by", *TARGETS):
            raise ValueError(f"unknown key {key[:40]!r}{nearest(key, ['by', *TARGETS])}")
    given = [key for key in TARGETS if key in command]
    if len(given) > 1:
        raise ValueError(f"{given[0]} and {given[1]}: expected one of them")
    _check_types(command)
    by = "".join(c for c in command.get("by") or "a person" if c.isprintable())[:BY_CHARS_MAX]
    return {**command, "by": f"cancelled by {by}".encode()}


def _check_types(command: dict[str, Any]) -> None:
    kinds = {"by": (str,), "item": (str, int), "ticket": (int,), "source": (str,)}
    for key, allowed in kinds.items():
        value = command.get(key, allowed[0]())
        if isinstance(value, bool) or not isinstance(value, allowed):
            names = {str: "a string", int: "a whole number"}
            raise ValueError(f"{key} is {str(value)[:40]!r}, expected "
                             f"{' or '.join(names[kind] for kind in allowed)}")  # fmt: skip
