"""The desk: where clients ask a service for something, and get their answers.

JSON lines over the control socket; each is answered with one line of JSON, in their order.

    {"do": "submit", "item": {"id": "a", ...}, "client": "ann", "wait": true}
    -> {"ok": true, "id": "a", "run": "vote-3", "item": 7, "event": 9, "tag": "12.0",
        "again": false}   with "wait" later, and with the item's lines: "answer": [{...}]
    -> {"error": "busy: ...", "code": "busy", "waiting": 256, ..., "retry_after_s": 1.5}
    {"do": "call", "model": "small", "request": {"messages": [...]}, "id": "b", "told": true}
    -> as submit with "wait", of an item that is a call to a model; before it, with "told",
       {"id": "b", "at": 4, "ids": [1031]}: tokens of its answer, behind the first four
    {"do": "cancel", "item": "a"}  {"do": "cancel", "ticket": 17}
    -> {"ok": true, "event": 11, "tag": "13.0"}; null and null: it was not handed in yet
    {"do": "status"}  {"do": "drain"}

An item is asked for by its id: who asks again hears of the same item, also after a crash. What is
said of an item is recorded before it is said.
"""

import json
from collections.abc import Callable
from typing import Any, Protocol

from lockstep.engine.record import HEADER_BYTES
from lockstep.engine.settings import nearest
from lockstep.engine.strict_json import loads_object
from lockstep.workers.outside.inlet import CALL, ITEM, TOLD_CALL
from lockstep.workers.outside.lines import Answer
from lockstep.workers.service.asked import Asked, Waiter
from lockstep.workers.service.history import mark_of
from lockstep.workers.service.lane import Lane
from lockstep.workers.service.limits import Limits, Occupancy
from lockstep.workers.service.states import BACKOFF, STARTING, STUCK

KEYS = {
    "submit": ("item", "client", "wait"),
    "call": ("model", "request", "id", "client", "told"),
    "cancel": ("item", "ticket", "by"),
    "status": (),
    "drain": (),
}
TYPES: dict[str, tuple[type, ...]] = {
    "client": (str,), "wait": (bool,), "by": (str,), "ticket": (int,), "model": (str,),
    "request": (dict,), "id": (str,), "told": (bool,),
}  # fmt: skip
CLIENT = "anybody"
CLIENT_CHARS_MAX = 100


class Refusal(Exception):
    """A request that is not done.

    Attributes:
        answer: What the client hears.
    """

    def __init__(self, error: str, code: str = "refused", **more: object) -> None:
        super().__init__(error)
        self.answer: dict[str, Any] = {"error": error, "code": code, **more}


class Service(Protocol):
    """The service, as the desk sees it."""

    calls: bool  # Whether calls to models are taken.

    def lane(self) -> Lane:
        """Where new items go now.

        Raises:
            Refusal: nothing new is taken.
        """

    def status(self) -> dict[str, Any]:
        """How the service is."""

    def drain(self) -> None:
        """Take nothing new, finish, end."""


class Desk:
    """Requests, and what is remembered of items.

    Attributes:
        record_bytes_max: Of the fleet that takes new items.
        occupancy: What waits.
        accepted_count, answered_count: Items, since the service was started.
    """

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self.record_bytes_max = 0
        self.occupancy = Occupancy(limits)
        self._asked: dict[str, Asked] = {}  # By id, of all runs that are kept.
        self._do: dict[str, Callable[[dict[str, Any], Answer], None]] = {
            "submit": self._submit,
            "call": self._call,
            "cancel": self._cancel,
            "status": lambda _, answer: answer.give({"ok": True, **service.status()}),
            "drain": self._drain,
        }
        self.accepted_count = self.answered_count = 0

    def hear(self, line: bytes, answer: Answer) -> None:
        """A client's line."""
        try:
            command = _command(line)
            self._do[command["do"]](command, answer)
        except Refusal as refusal:
            answer.give(refusal.answer)
        except ValueError as error:
            answer.give({"error": str(error), "code": "refused"})

    # -- what was asked before ------------------------------------------------------------------

    def remember(self, asked: list[Asked]) -> None:
        """Items of a run that was there before."""
        for one in asked:
            self._asked[one.id] = one
            if one.number in one.lane.open:
                self._enter(one)

    def forget(self, lane: Lane) -> None:
        """The run is removed."""
        self._asked = {id: asked for id, asked in self._asked.items() if asked.lane is not lane}

    # -- what lanes say -------------------------------------------------------------------------

    def accepted(self, asked: Asked) -> None:
        """As `lane.Owner`."""
        self.accepted_count += 1
        told = [waiter for waiter in asked.waiters if not waiter.wait]
        asked.waiters = [waiter for waiter in asked.waiters if waiter.wait]
        for waiter in told:
            waiter.answer.give(_receipt(asked, waiter.again))

    def refused(self, asked: Asked, why: str) -> None:
        """As `lane.Owner`."""
        self._asked.pop(asked.id, None)
        self._leave(asked, answered=False)
        self._give(asked, {"error": why, "code": "refused"})

    def answered(self, asked: Asked, lines: bytes) -> None:
        """As `lane.Owner`."""
        self.answered_count += 1
        self._leave(asked)
        waiters, asked.waiters = asked.waiters, []
        for waiter in waiters:
            waiter.answer.give(_with_lines(_receipt(asked, waiter.again), lines))

    def stuck(self, lane: Lane, why: str) -> None:
        """Items of a lane wait for a person now: they take no room from those that go on."""
        for asked in [*lane.open.values(), *lane.pending]:
            self._leave(asked, answered=False)
        self.give_up(lane, why, "stuck")

    def lost(self, lane: Lane, why: str) -> None:
        """Whoever waits for items of a lane can ask for them again, as new ones."""
        for asked in lane.open.values():
            self._leave(asked, answered=False)
        self.give_up(lane, why, "lost")

    def give_up(self, lane: Lane, why: str, code: str) -> None:
        """Whoever waits for items of a lane hears why they do not go on now."""
        for asked in [*lane.open.values(), *lane.pending]:
            self._give(asked, {"error": why, "code": code})

    # -- what clients ask -----------------------------------------------------------------------

    def _submit(self, command: dict[str, Any], answer: Answer) -> None:
        item = command.get("item")
        if not isinstance(item, dict):
            raise ValueError(f"item is {item!s:.40}, expected a JSON object")
        given = item.get("id", "")
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise ValueError(f"item: id is {given!s:.40}, expected a string or an integer")
        self._ask(item, command, ITEM, Waiter(answer, command.get("wait", False), again=False))

    def _call(self, command: dict[str, Any], answer: Answer) -> None:
        if not self._service.calls:
            raise Refusal("the service takes no calls to models: it was started without --http")
        if "model" not in command or "request" not in command:
            raise ValueError("call: expected model and request")
        given = {"id": command["id"]} if "id" in command else {}
        item = {**given, "model": command["model"], "request": command["request"]}
        told = command.get("told", False)
        waiter = Waiter(answer, wait=True, again=False, told=told)
        self._ask(item, command, TOLD_CALL if told else CALL, waiter)

    def _ask(
        self, item: dict[str, Any], command: dict[str, Any], kind: bytes, waiter: Waiter
    ) -> None:
        if "id" not in item:
            item = {"id": self._free_id(), **item}
        line = json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode()
        known = self._asked.get(json.dumps(item["id"]))
        if known is not None:
            self._again(known, mark_of(line), waiter.answer, waiter.wait)
        else:
            self._take(item["id"], line, command.get("client", "") or CLIENT, kind, waiter)

    def _take(self, id: str | int, line: bytes, client: str, kind: bytes, waiter: Waiter) -> None:
        most = self.record_bytes_max - HEADER_BYTES
        if len(line) > most:
            raise ValueError(f"item: {len(line)} bytes, at most {most} fit a record "
                             "([fleet] record_bytes_max)")  # fmt: skip
        lane = self._service.lane()
        full = self.occupancy.full(client)
        if full is not None:
            waiter.answer.give(full)
            return
        asked = Asked(json.dumps(id), mark_of(line), client, lane, line, kind)
        asked.waiters.append(waiter)
        self._asked[asked.id] = asked
        self._enter(asked)
        lane.submit(asked)

    def _again(self, known: Asked, mark: bytes, answer: Answer, wait: bool) -> None:
        """An id that was asked for before: no second item, whatever became of the first."""
        if known.mark != mark:
            what = f"id {known.id:.80} is that of another item"
            raise Refusal(what, "other", id=json.loads(known.id))
        goes_on = bool(known.line) or known.number in known.lane.open
        if goes_on and known.lane.state == STUCK:
            raise _stuck(known)
        if goes_on and (wait or known.line):
            # Who has gone is not kept: any number may come and go while it goes on.
            known.waiters = [waiter for waiter in known.waiters if not waiter.answer.vain]
            known.waiters.append(Waiter(answer, wait, again=True))
        elif not wait:
            answer.give(_receipt(known, True))
        else:
            answer.give(_with_lines(_receipt(known, True), _lines_of(known)))

    def _cancel(self, command: dict[str, Any], answer: Answer) -> None:
        by = command.get("by", "") or "a person"
        if ("item" in command) == ("ticket" in command):
            raise ValueError("cancel: expected item or ticket")
        if "ticket" in command:
            lane, what = self._service.lane(), {"ticket": command["ticket"]}
        else:
            asked = self._find(command["item"])
            if not asked.line and asked.number not in asked.lane.open:
                raise Refusal(f"item {asked.id:.80} is finished already")
            lane, what = asked.lane, {"item": json.loads(asked.id)}
            if lane.state == STUCK:
                raise _stuck(asked)
            if lane.state in (BACKOFF, STARTING) and asked in lane.pending:
                self._drop(asked, by)
                answer.give({"ok": True, "event": None, "tag": None})
                return
        if not lane.cancel({"do": "cancel", "by": by, **what}, answer):
            raise Refusal("the run is being brought back; ask again", "later", retry_after_s=1.0)

    def _drop(self, asked: Asked, by: str) -> None:
        """An item that no supervisor was given, and none will be."""
        asked.lane.pending.remove(asked)
        asked.lane.came -= 1
        self.refused(asked, f"cancelled by {by} before it was handed in")

    def _drain(self, _: dict[str, Any], answer: Answer) -> None:
        self._service.drain()
        answer.give({"ok": True, "waiting": self.occupancy.total})

    # -- parts ----------------------------------------------------------------------------------

    def _find(self, id: Any) -> Asked:
        """An item by its id, as JSON or as a person types it."""
        found = self._asked.get(json.dumps(id))
        if found is None and isinstance(id, str) and id.removeprefix("-").isdecimal():
            found = self._asked.get(id)
        if found is None:
            raise Refusal(f"no item has the id {json.dumps(id):.80}", "unknown")
        return found

    def _free_id(self) -> str:
        lane = self._service.lane()
        number = lane.came + 1
        while json.dumps(id := f"{lane.name}/{number}") in self._asked:
            number += 1
        return id

    def _enter(self, asked: Asked) -> None:
        asked.counted = True
        self.occupancy.enter(asked.client)

    def _leave(self, asked: Asked, answered: bool = True) -> None:
        if asked.counted:  # Of one that was stuck before, the room was given back.
            asked.counted = False
            self.occupancy.leave(asked.client, answered)

    def _give(self, asked: Asked, value: dict[str, Any]) -> None:
        waiters, asked.waiters = asked.waiters, []
        for waiter in waiters:
            waiter.answer.give({**value, "id": json.loads(asked.id)})


def _command(line: bytes) -> dict[str, Any]:
    """A checked command.

    Raises:
        ValueError: it is none.
    """
    command = loads_object(line)
    do = command.get("do")
    if not isinstance(do, str) or do not in KEYS:
        raise ValueError(f"do is {str(do)[:40]!r}{nearest(str(do)[:40], list(KEYS))}")
    for key, value in command.items():
        if key != "do" and key not in KEYS[do]:
            raise ValueError(f"{do}: unknown key {key[:40]!r}{nearest(key, list(KEYS[do]))}")
        if key in TYPES and type(value) not in TYPES[key]:
            names = " or ".join(kind.__name__ for kind in TYPES[key])
            raise ValueError(f"{do}: {key} is {value!s:.40}, expected {names}")
    if len(command.get("client", "")) > CLIENT_CHARS_MAX:
        raise ValueError(f"{do}: client has more than {CLIENT_CHARS_MAX} characters")
    return command


def _stuck(asked: Asked) -> Refusal:
    """Nothing can be done about an item before a person has looked at its run."""
    lane = asked.lane
    why = f"run {lane.name} does not go on: {lane.why}"
    return Refusal(why, "stuck", id=json.loads(asked.id))


def _receipt(asked: Asked, again: bool) -> dict[str, Any]:
    return {
        "ok": True,
        "id": json.loads(asked.id),
        "run": asked.lane.name,
        "item": asked.number,
        "event": asked.event,
        "tag": asked.tag,
        "again": again,
    }


def _with_lines(receipt: dict[str, Any], lines: bytes) -> bytes:
    """The receipt with the item's lines, which are the agents' own bytes."""
    return json.dumps(receipt).encode()[:-1] + b',"answer":[' + lines + b"]}"


def _lines_of(asked: Asked) -> bytes:
    try:
        lines = asked.lane.answers.get(asked.number)
    except OSError as error:
        raise Refusal(f"the answer cannot be read: {error}", "unreadable") from None
    if lines is None:
        raise Refusal(f"run {asked.lane.name} has no answer to it", "unreadable")
    return lines
