"""The world at one tag: agents, mailboxes, requests and items, and how effects change them.

Rule 3 in code: effects in hashed order of agents, tickets dealt one per agent in turn, messages
delivered at the same tag, then whoever has events is woken. When a tag is processed, and when
the engine may run, is the sequencer's business; here time only stands still.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lockstep.engine import actions, effects, keyed
from lockstep.engine import tag as tags
from lockstep.engine.effects import Turn
from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.history import TICKET_PAYLOAD, Entry, TagEntry
from lockstep.engine.items import InputItem, ItemBook
from lockstep.engine.mailbox import Event, EventClass, Mailbox
from lockstep.engine.record import (
    PEER_NONE,
    Kind,
    Outcome,
    Record,
    decode_at,
    encode,
    encode_record,
)
from lockstep.engine.requests import RequestBook
from lockstep.engine.schedule import make
from lockstep.engine.strict_json import dumps
from lockstep.engine.tag import Tag
from lockstep.engine.wire import Answer


@dataclass(slots=True)
class AgentState:
    """One agent's logical state."""

    turn: int = 0  # Number of the turn it is in, or was in last.
    busy: bool = True  # A turn is not over: its events are kept until its effect tag.
    alive: bool = True
    mailbox: Mailbox = field(default_factory=Mailbox)
    timers: dict[int, int] = field(default_factory=dict)  # Item -> timers set and not fired.


@dataclass(slots=True)
class Counts:
    """What a run did, in logical units."""

    turns: int = 0
    messages: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    steps: int = 0
    requests_failed: int = 0  # Refused, timed out, or an output that was not finite.
    request_failure: str = ""  # Why, of the first one.


class World:
    """Everything that can change at a tag. One writer: the sequencer."""

    def __init__(
        self,
        fleet: Fleet,
        inputs: Sequence[InputItem],
        set_timer: Callable[[Tag, int, Event], None],
    ) -> None:
        names = [agent.name for agent in fleet.agents]
        schedule = fleet.schedule
        self.fleet = fleet
        self.agents = [AgentState() for _ in fleet.agents]
        self.requests = RequestBook(len(names))
        self.items = ItemBook(
            inputs, names, schedule.items_in_flight_max, schedule.items_reordered_max
        )
        self.counts = Counts()
        self.failures: list[tuple[str, str]] = []  # (agent, reason), in order.
        self.actions: list[actions.Action] = []
        self.schedule = make(fleet, self, bool(inputs))
        self._names = names
        self._starts = start_records(fleet)
        self._set_timer = set_timer
        self._order_key = keyed.key(fleet.seed, "order", "agents")
        self._tag: Tag = tags.ORIGIN
        self._entry = TagEntry(tags.ORIGIN)
        self._applied = 0  # Running number of what goes into mailboxes, within a run.

    # -- one tag, in the order of rule 3 ------------------------------------------------------

    def open(self, tag: Tag) -> None:
        """Begin to process a tag."""
        self._tag = tag
        self._entry = TagEntry(tag)

    def begin(self) -> None:
        """At (0, 0): every agent is in its turn 0, without events, and START waits for it."""
        for agent, record in enumerate(self._starts):
            self._put(agent, EventClass.START, 0, record)
            self._entry.add(encode(Kind.TURN, id=0, peer=agent))
            self.counts.turns += 1

    def effects(self, turns: dict[int, Turn]) -> None:
        """Apply the turns that take effect at this tag."""
        tag = self._tag
        order = sorted(turns, key=lambda a: (keyed.draw(self._order_key, *tag, a), a))
        settled: list[tuple[int, Turn, list[Record]]] = []
        for agent in order:
            turn, records = self._settle(agent, turns[agent])
            self._entry.add(
                encode(
                    Kind.EFFECT,
                    turn.records,
                    flags=turn.outcome,
                    id=turn.number,
                    item=turn.fuel,
                    peer=agent,
                )
            )
            self.agents[agent].busy = False
            settled.append((agent, turn, records))
        self._deal_tickets(settled)
        for agent, turn, records in settled:
            # Tickets are dealt already, but a CANCEL does not reach an INFER written behind it.
            ahead = {r.id: None for r in records if r.kind == Kind.INFER}
            for record in records:
                if record.kind == Kind.INFER:
                    del ahead[record.id]
                elif record.kind != Kind.CANCEL or record.id not in ahead:
                    self._apply(agent, record)
            said_done = any(r.kind == Kind.DONE and not r.item for r in records)
            if turn.outcome != Outcome.BLOCKED or said_done:
                self._bury(agent, turn)
            else:
                self.schedule.after_effects(agent)

    def completions(self, answers: Sequence[Answer]) -> None:
        """Answers of the step before become deliverable."""
        for answer in answers:
            ticket = self.requests.answer(answer.ticket)
            if self.agents[ticket.agent].alive:
                self._put(ticket.agent, EventClass.COMPLETION, ticket.number, answer.record)
            else:
                self.requests.deliver(ticket.number)  # Nobody waits for it any more.

    def timers(self, fired: Sequence[tuple[int, Event]]) -> None:
        """Timers set for this tag fire, in the order they were set."""
        for agent, event in fired:
            if self.agents[agent].alive:
                self.agents[agent].mailbox.put(event)

    def admit(self) -> None:
        """Let items in until enough are in flight."""
        while self.items.may_admit():
            item, payload = self.items.admit()
            self._entry.add(encode(Kind.ADMIT, item=item))
            self.schedule.admit(item, payload)

    def close_all(self) -> None:
        """Tell every living agent that nothing more will come."""
        for index, agent in enumerate(self.agents):
            if agent.alive:
                self._put(index, EventClass.CLOSE, 0, encode(Kind.CLOSE))

    def wake(self) -> list[tuple[int, actions.Wake]]:
        """Begin a turn of every agent that has events and none running."""
        woken = []
        for index, agent in enumerate(self.agents):
            if agent.busy or not agent.alive or not agent.mailbox:
                continue
            events = agent.mailbox.take()
            agent.turn += 1
            agent.busy = True
            for event in events:
                self._seen(index, event)
            data = b"".join(event.record for event in events)
            self._entry.add(encode(Kind.TURN, data, id=agent.turn, peer=index))
            self.counts.turns += 1
            woken.append((index, actions.Wake(index, agent.turn, self._tag, data, len(events))))
        return woken

    def close(self) -> Entry:
        """The tag is processed: its entry. Actions after it may show what it promised."""
        return self._entry.close()

    def stop(self, reason: str) -> None:
        """Give up every item that is not finished, for the one reason, and record the end."""
        for item in range(1, len(self.items) + 1):
            if item > self.items.admitted:
                self._fail(item, f"{reason}; the item never entered")
            elif self.items.unfinished(item):
                names = [self._names[a] for a in self.schedule.holders(item)]
                self._fail(item, f"{reason}; it was held by {', '.join(names) or 'nobody'}")
        self._entry.add(encode(Kind.STOP, reason.encode()))

    # -- what a schedule may do ---------------------------------------------------------------

    def deliver_item(self, agent: int, item: int, payload: bytes, peer: int, turn: int) -> None:
        """Give an item to an agent (engine/schedule/base.py)."""
        if not self.items.unfinished(item):
            return
        if not self.agents[agent].alive:
            self.fail_item(item, f"agent {self._names[agent]} has ended before it got the item")
            return
        record = encode(Kind.ITEM, payload, id=turn, item=item, peer=peer)
        self._put(agent, EventClass.ITEM, item, record, Kind.ITEM, item, peer)

    def finish_item(self, item: int, outputs: Sequence[tuple[int, bytes]]) -> None:
        """The item is done."""
        self.schedule.forget(item)
        self.items.finish(item, self._tag, outputs)
        for agent, payload in outputs:
            self._entry.add(encode(Kind.OUTCOME, payload, item=item, peer=agent))
            self._entry.output(agent, item, payload)

    def fail_item(self, item: int, reason: str) -> None:
        """The item is given up."""
        if self.items.unfinished(item):
            self._fail(item, reason)

    def has_open(self, agent: int, item: int) -> bool:
        """Whether the agent waits for a request or timer of the item."""
        if self.agents[agent].timers.get(item):
            return True
        return any(ticket.item == item for ticket in self.requests.open(agent).values())

    # -- parts --------------------------------------------------------------------------------

    def _settle(self, agent: int, turn: Turn) -> tuple[Turn, list[Record]]:
        turn, records = effects.settle(turn)
        if turn.outcome not in (Outcome.BLOCKED, Outcome.RETURNED):
            return turn, records
        limits = effects.Limits(len(self.agents), len(self.fleet.models), self.items.admitted)
        requests = self.requests.open(agent)
        going = self.items.unfinished  # What was finished meanwhile may still be written to.
        why = effects.check(
            records,
            limits,
            requests.__contains__,
            len(requests),
            lambda item: self.schedule.may_emit(agent, item) if going(item) else "",
            lambda item: self.schedule.may_finish(agent, item) if going(item) else "",
            sum(self.agents[agent].timers.values()),
        )
        return (effects.failed(turn, why), effects.logs_of(records)) if why else (turn, records)

    def _deal_tickets(self, settled: list[tuple[int, Turn, list[Record]]]) -> None:
        # One per agent in turn, so that an agent with many requests does not push back the rest.
        waiting = [(a, [r for r in records if r.kind == Kind.INFER]) for a, _, records in settled]
        due = self._tag[0] + self.fleet.schedule.lookahead
        for place in range(max((len(records) for _, records in waiting), default=0)):
            for agent, records in waiting:
                if place < len(records):
                    self._issue(agent, records[place], due)

    def _issue(self, agent: int, record: Record, due: int) -> None:
        ticket = self.requests.issue(agent, record.id, record.item, due)
        payload = TICKET_PAYLOAD.pack(due, ticket.ordinal, ticket.request)
        number, item = ticket.number, ticket.item
        self._entry.add(encode(Kind.TICKET, payload, id=number, item=item, peer=agent))
        self.actions.append(actions.Issue(ticket, encode_record(record)))

    def _apply(self, agent: int, record: Record) -> None:
        match record.kind:
            case Kind.LOG:
                stream = 0 if record.peer == PEER_NONE else record.peer
                self.actions.append(
                    actions.Log(agent, record.id, stream, self._tag, record.payload)
                )
            case Kind.SEND:
                self._send(agent, record)
            case Kind.EMIT:
                if self.items.unfinished(record.item):
                    self.schedule.emitted(agent, record.item, record.payload)
            case Kind.CANCEL:
                self._revoke(agent, record.id)
            case Kind.SET_TIMER:
                self._time(agent, record)
            case Kind.DONE:
                if record.item and self.items.unfinished(record.item):
                    self.schedule.done(agent, record.item)

    def _send(self, agent: int, record: Record) -> None:
        self.counts.messages += 1
        self._entry.message(agent, record.peer, record.payload)
        fields = {"id": record.id, "item": record.item}
        if self.agents[record.peer].alive:
            message = encode(Kind.MESSAGE, record.payload, peer=agent, **fields)
            self._put(
                record.peer, EventClass.MESSAGE, self._number(), message,
                Kind.MESSAGE, record.item, agent,
            )  # fmt: skip
        else:
            self._return(agent, record.peer, record.id, record.item, record.payload)

    def _return(self, sender: int, receiver: int, id: int, item: int, payload: bytes) -> None:
        if self.agents[sender].alive:
            record = encode(Kind.UNDELIVERED, payload, id=id, item=item, peer=receiver)
            self._put(sender, EventClass.UNDELIVERED, self._number(), record)

    def _time(self, agent: int, record: Record) -> None:
        (steps,) = effects.TIMER_PAYLOAD.unpack(record.payload)
        tag = (self._tag[0] + steps, 0)
        data = encode(Kind.TIMER, id=record.id, item=record.item)
        number = self._number()
        timers = self.agents[agent].timers
        timers[record.item] = timers.get(record.item, 0) + 1
        event = Event(tag, EventClass.TIMER, number, 0, Kind.TIMER, record.item, PEER_NONE, data)
        self._set_timer(tag, agent, event)

    def _revoke(self, agent: int, request: int) -> None:
        ticket = self.requests.open(agent).get(request)
        if ticket is None or not self.requests.unanswered(ticket):
            return  # The answer was on its way already: it stands.
        due = self._tag[0] + self.fleet.schedule.lookahead
        self._entry.add(encode(Kind.REVOKE, due.to_bytes(8, "little"), id=ticket.number))
        self.actions.append(actions.Revoke(ticket.number, due))

    def _bury(self, index: int, turn: Turn) -> None:
        """An agent ends: its requests are cancelled, its items fail, its mail goes back."""
        agent = self.agents[index]
        agent.alive = False
        reason = ""
        if turn.outcome not in (Outcome.BLOCKED, Outcome.RETURNED):
            reason = f"{Outcome(turn.outcome).name.lower().replace('_', ' ')}: {turn.reason}"
            self.failures.append((self._names[index], reason))
            self._entry.add(encode(Kind.FAILED, reason.encode(), flags=turn.outcome, peer=index))
        for request in list(self.requests.open(index)):
            self._revoke(index, request)
        for event in agent.mailbox.take():
            if event.kind == Kind.MESSAGE:
                sent, _ = decode_at(event.record, 0)
                self._return(event.peer, index, sent.id, sent.item, sent.payload)
        what = f"failed: {reason}" if reason else "ended before it emitted"
        for item in self.items.in_flight():
            if self.items.unfinished(item) and index in self.schedule.holders(item):
                self._fail(item, f"agent {self._names[index]} {what}")
        self.actions.append(actions.Bury(index, reason))

    def _fail(self, item: int, reason: str) -> None:
        if self.items.unfinished(item):
            self.schedule.forget(item)
        self.items.fail(item, reason)
        self._entry.add(encode(Kind.OUTCOME, reason.encode(), flags=1, item=item))

    def _seen(self, index: int, event: Event) -> None:
        """Book what an agent learns by being woken."""
        if event.event_class == EventClass.COMPLETION:
            self.requests.deliver(event.key)
        elif event.kind == Kind.ITEM:
            self.schedule.delivered(index, event.item)
        elif event.kind == Kind.TIMER:
            timers = self.agents[index].timers
            timers[event.item] -= 1
            if not timers[event.item]:
                del timers[event.item]

    def _put(
        self,
        agent: int,
        event_class: EventClass,
        key: int,
        record: bytes,
        kind: int = 0,
        item: int = 0,
        peer: int = PEER_NONE,
    ) -> None:
        event = Event(self._tag, event_class, key, self._number(), kind, item, peer, record)
        self.agents[agent].mailbox.put(event)

    def _number(self) -> int:
        self._applied += 1
        return self._applied


def start_records(fleet: Fleet) -> list[bytes]:
    """Every agent's START: who it is, who the others are, and its config as JSON.

    Raises:
        UsageError: one is larger than a record may be (a huge config or roster).
    """
    names = [agent.name for agent in fleet.agents]
    models = [model.name for model in fleet.models]
    records = []
    for agent in fleet.agents:
        config = fleet.groups[agent.group].config
        payload = dumps({"agent": agent.name, "agents": names, "models": models, "config": config})
        record = encode(Kind.START, payload, id=agent.replica, item=len(names), peer=agent.index)
        if len(record) > fleet.record_bytes_max:
            raise UsageError(
                f"START of agent {agent.name} (its config and {len(names)} names) has "
                f"{len(record)} bytes, [fleet] record_bytes_max is {fleet.record_bytes_max}"
            )
        records.append(record)
    return records
