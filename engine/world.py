"""The world at one tag: agents, requests and items, and how effects change them.

Rule 3 in code: parked senders first, then effects in hashed order of agents, tickets dealt one
per agent in turn, messages delivered at the same tag, then whoever has events is woken. When a
tag is processed, and when the engine may run, is the sequencer's business; here time only stands
still.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from lockstep.engine import actions, effects, keyed
from lockstep.engine import tag as tags
from lockstep.engine.counts import Counts
from lockstep.engine.effects import Limits, Turn
from lockstep.engine.fleet import Fleet
from lockstep.engine.flood import Flood
from lockstep.engine.history import Entry, TagEntry
from lockstep.engine.itemdesk import ItemDesk
from lockstep.engine.items import InputItem, ItemBook
from lockstep.engine.mailbox import Event, EventClass
from lockstep.engine.order import Order
from lockstep.engine.outside import Outside, What
from lockstep.engine.post import Applying, Post
from lockstep.engine.record import (
    PEER_ALL,
    PEER_NONE,
    TAKES_EFFECT,
    Kind,
    Outcome,
    Record,
    encode,
)
from lockstep.engine.roster import AgentState, Roster, start_records
from lockstep.engine.standing import AgentStanding
from lockstep.engine.tag import Tag
from lockstep.engine.ticketdesk import TicketDesk
from lockstep.engine.tooldesk import ToolDesk

# Of a turn like any other: to look one up in its enumeration takes as long as a call.
_SEND, _TURN, _EFFECT = int(Kind.SEND), int(Kind.TURN), int(Kind.EFFECT)
_BLOCKED, _OF_MESSAGES = int(Outcome.BLOCKED), int(EventClass.MESSAGE)


class World:
    """Everything that can change at a tag. One writer: the sequencer."""

    def __init__(
        self,
        fleet: Fleet,
        inputs: Sequence[InputItem],
        set_timer: Callable[[Tag, int, Event], None],
        order: Order,
    ) -> None:
        self.fleet = fleet
        self.roster = Roster(fleet)
        self.post = Post(fleet, self.roster)
        self.desk = ItemDesk(fleet, inputs, self)
        self.tickets = TicketDesk(self, order, fleet.schedule.order == "strict")
        self.requests = self.tickets.book
        self.tools = ToolDesk(self)
        self.counts = Counts()
        self.failures: list[tuple[str, str]] = []  # (agent, reason), in order.
        self.actions: list[actions.Action] = []
        self.cancelled = ""  # Why the whole run was cancelled.
        self.entry = TagEntry(tags.ORIGIN)
        self._starts = start_records(fleet)
        self._limits = Limits(
            agents=len(self.roster),
            models=len(fleet.models),
            items=0,
            topics=len(fleet.schedule.topics),
            tools=len(fleet.tools),
        )
        self._set_timer = set_timer
        self._order_key = keyed.key(fleet.seed, "order", "agents")

    def change(self, fleet: Fleet) -> None:
        """From now on the fleet is another one (engine/changes.py says in what)."""
        self.fleet = fleet
        self._order_key = keyed.key(fleet.seed, "order", "agents")
        self.desk.book.change(
            fleet.schedule.items_in_flight_max, fleet.schedule.items_reordered_max
        )

    @property
    def agents(self) -> list[AgentState]:
        """Every agent's state, by index."""
        return self.roster.agents

    @property
    def items(self) -> ItemBook:
        """Every item and what became of it."""
        return self.desk.book

    # -- one tag, in the order of rule 3 ------------------------------------------------------

    def open(self, tag: Tag) -> None:
        """Begin to process a tag."""
        self.roster.tag = tag
        self.entry = TagEntry(tag)

    def begin(self) -> None:
        """At (0, 0): every agent is in its turn 0, without events, and START waits for it."""
        for agent, record in enumerate(self._starts):
            self.roster.put(agent, EventClass.START, 0, record)
            self.entry.add(encode(Kind.TURN, id=0, peer=agent))
            self.counts.turns += 1

    def effects(self, turns: dict[int, Turn], retry: bool, forced: bool) -> None:
        """Apply what parked senders still have to say, then the turns of this tag."""
        applying = list(self.post.parked.values()) if retry or forced else []
        if forced:
            self.post.accept_first(self.entry)
        self._know_limits()
        applying += [self._settle(agent, turns[agent]) for agent in self._hashed(turns)]
        over = [turn for turn in applying if self._advance(turn)]
        asking = [turn for turn in applying if turn.infers]
        if asking:
            self.tickets.deal(asking)
        for turn in over:
            self._over(turn)

    def timers(self, fired: Sequence[tuple[int, Event]]) -> None:
        """Timers set for this tag fire, in the order they were set."""
        for agent, event in fired:
            if self.roster[agent].alive:
                self.roster.deliver(agent, event)

    def outside(self, events: Iterable[Outside]) -> None:
        """Outside events take effect, in the order in which they arrived."""
        for event in events:
            self.entry.add(event.record())
            why = event.payload.decode("utf-8", "replace")
            match event.what:
                case What.ITEM:
                    self.desk.came(event.payload)
                case What.CALL:
                    self.desk.came(event.payload, call=True)
                case What.EVENT:
                    self._event(event)
                case What.TOOL:
                    self.tools.answered(event)
                case What.CANCEL_ITEM:
                    self.desk.cancel(event.source, why)
                case What.CANCEL_REQUEST:
                    ticket = self.requests.unanswered_ticket(event.source)
                    if ticket is not None:
                        self.tickets.revoke(ticket)
                case What.CANCEL_RUN:
                    self.cancelled = why or "cancelled"
                case What.PROVIDER:
                    pass  # It is told here; where it takes effect is the step that it names.

    def close_all(self) -> None:
        """Tell every living agent that nothing more will come."""
        for index in self.roster.living():
            self.roster.put(index, EventClass.CLOSE, 0, encode(Kind.CLOSE))

    def wake(self) -> list[actions.Wake]:
        """Begin a turn of every agent that has events and none running."""
        woken: list[actions.Wake] = []
        agents = self.roster.agents
        for index in self.roster.take_touched():
            agent = agents[index]
            events = [] if agent.busy or not agent.alive else agent.mailbox.take()
            if not events:
                continue
            if self.post.parked:
                self.post.took(index)
            agent.turn += 1
            agent.busy = True
            for event in events:
                if event.event_class != _OF_MESSAGES:
                    self._seen(index, event)
            data, count = events[0].record, events[0].count
            if len(events) > 1:
                data = b"".join([event.record for event in events])
                count = sum([event.count for event in events])
            self.entry.add(encode(_TURN, data, id=agent.turn, peer=index))
            self.counts.turns += 1
            wake = index, agent.turn, self.roster.tag, data, count
            woken.append(tuple.__new__(actions.Wake, wake))
        return woken

    def close(self) -> Entry:
        """The tag is processed: its entry. Actions after it may show what it promised."""
        self.counts.messages = self.post.messages
        return self.entry.close()

    def stop(self, reason: str) -> None:
        """Give up every item that is not finished, for the one reason, and record the end."""
        self.desk.stop(reason)
        self.entry.add(encode(Kind.STOP, reason.encode()))

    # -- what items and schedules ask for -----------------------------------------------------

    def has_open(self, agent: int, item: int) -> bool:
        """Whether the agent waits for a request, timer or tool call of the item."""
        if self.roster[agent].timers.get(item):
            return True
        books = self.requests.open(agent).values(), self.tools.book.open(agent).values()
        return any(waiting.item == item for book in books for waiting in book)

    def cancel_work(self, item: int) -> None:
        """Cancel every request and tool call of an item."""
        self.tickets.cancel_item(item)
        self.tools.stop_item(item)

    # -- effects of one turn ------------------------------------------------------------------

    def _hashed(self, turns: dict[int, Turn]) -> list[int]:
        """The order of agents inside this tag (rule 3)."""
        if len(turns) < 2:
            return list(turns)
        step, micro = self.roster.tag
        drawn = keyed.draws(self._order_key, step, micro, turns)
        return [agent for _, agent in sorted(zip(drawn, turns, strict=True))]

    def _know_limits(self) -> None:
        admitted = self.desk.book.admitted
        if admitted != self._limits.items:
            self._limits = replace(self._limits, items=admitted)

    def _settle(self, agent: int, turn: Turn) -> Applying:
        """The turn as it will take effect: whole, or its logs and a failure."""
        limits = self._limits
        records: list[Record] = []
        flood = None
        if turn.outcome in TAKES_EFFECT:
            flood = Flood.of(agent, turn.records, limits)
        if flood is None:
            turn, records = effects.settle(turn)
            if turn.outcome in TAKES_EFFECT:
                why = effects.check(records, limits, AgentStanding(self, agent))
                if why:
                    turn, records = effects.failed(turn, why), effects.logs_of(records)
        self.entry.add(
            encode(
                _EFFECT,
                turn.records,
                flags=turn.outcome,
                id=turn.number,
                item=turn.fuel,
                peer=agent,
            )
        )
        return Applying(agent, turn, records, flood)

    def _advance(self, applying: Applying) -> bool:
        """Apply records until the end, or until one has to wait; whether the turn is over."""
        if applying.flood is not None:
            if self.post.send_flood(applying.agent, applying.flood, self.entry):
                return True
            applying.records, applying.flood = list(applying.flood.batch), None
        records, at = applying.records, applying.at
        while at < len(records):
            record = records[at]
            if record.kind != _SEND:
                self._apply(applying, record)
            elif not self.post.send(applying, record, self.entry):
                break
            at += 1
        applying.at = at
        if at < len(records):
            self.post.parked[applying.agent] = applying
            return False
        self.post.parked.pop(applying.agent, None)
        return True

    def _apply(self, applying: Applying, record: Record) -> None:
        agent = applying.agent
        match record.kind:
            case Kind.LOG:
                stream = 0 if record.peer == PEER_NONE else record.peer
                self.actions.append(
                    actions.Log(agent, record.id, stream, self.roster.tag, record.payload)
                )
            case Kind.EMIT:
                self.desk.emitted(agent, record)
            case Kind.INFER:
                applying.infers.append(record)
            case Kind.CANCEL if record.item:
                self.desk.cancel(record.item, f"cancelled by agent {self.roster.names[agent]}")
            case Kind.CANCEL if record.peer == PEER_ALL:
                self.cancelled = f"cancelled by agent {self.roster.names[agent]}"
            case Kind.CANCEL:
                self._cancel(applying, record.id)
            case Kind.SUBSCRIBE:
                self.post.subscribe(agent, record)
            case Kind.SET_TIMER:
                self._time(agent, record)
            case Kind.TOOL_CALL:
                call = self.tools.call(agent, record)
                if call.item and self.desk.book.cancelled(call.item):
                    self.tools.stop(call)
            case Kind.DONE if record.item:
                self.desk.done(agent, record.item)
            case Kind.DONE:
                applying.said_done = True

    def _over(self, applying: Applying) -> None:
        """Every record of the turn has taken effect."""
        agent, turn = applying.agent, applying.turn
        self.roster.agents[agent].busy = False
        self.roster.touch(agent)
        if turn.outcome != _BLOCKED or applying.said_done:
            self._bury(agent, turn)
        else:
            self.desk.schedule.after_effects(agent)

    def _cancel(self, applying: Applying, request: int) -> None:
        """A CANCEL reaches what was written before it, not an INFER behind it."""
        agent = applying.agent
        call = self.tools.book.open(agent).get(request)
        if call is not None:
            self.tools.stop(call)
        elif request in self.requests.open(agent):
            self.tickets.cancel(agent, request)
        elif any(infer.id == request for infer in applying.infers):
            applying.late_cancels.append(request)

    # -- timers, outside events --------------------------------------------------------------

    def _event(self, event: Outside) -> None:
        wanted = self.fleet.sources[event.source].to
        record = encode(Kind.EVENT, event.payload, id=event.number, peer=event.source)
        for agent in self.fleet.agents:
            if self.fleet.groups[agent.group].name in wanted and self.roster[agent.index].alive:
                self.roster.put(agent.index, EventClass.OUTSIDE, event.number, record)

    def _time(self, agent: int, record: Record) -> None:
        (steps,) = effects.TIMER_PAYLOAD.unpack(record.payload)
        tag = (self.roster.tag[0] + steps, 0)
        data = encode(Kind.TIMER, id=record.id, item=record.item)
        number = self.roster.number()
        timers = self.roster[agent].timers
        timers[record.item] = timers.get(record.item, 0) + 1
        event = Event(tag, EventClass.TIMER, number, 0, Kind.TIMER, record.item, PEER_NONE, data)
        self._set_timer(tag, agent, event)

    # -- ends ---------------------------------------------------------------------------------

    def _bury(self, index: int, turn: Turn) -> None:
        """An agent ends: its requests are cancelled, its items fail, its mail goes back."""
        agent = self.roster[index]
        agent.alive = False
        reason = ""
        if turn.outcome not in TAKES_EFFECT:
            reason = f"{Outcome(turn.outcome).name.lower().replace('_', ' ')}: {turn.reason}"
            self.failures.append((self.roster.names[index], reason))
            self.entry.add(encode(Kind.FAILED, reason.encode(), flags=turn.outcome, peer=index))
        self.tickets.end(index)
        self.tools.end(index)
        self.post.end(index, agent.mailbox.take())
        what = f"failed: {reason}" if reason else "ended before it emitted"
        self.desk.ended(index, f"agent {self.roster.names[index]} {what}")
        self.actions.append(actions.Bury(index, reason))

    def _seen(self, index: int, event: Event) -> None:
        """Book what an agent learns by being woken."""
        if event.event_class == EventClass.COMPLETION:
            self.requests.deliver(event.key)
        elif event.kind == Kind.ITEM:
            self.desk.delivered(index, event.item)
        elif event.kind == Kind.TOOL_RESULT:
            self.tools.book.deliver(event.peer)
        elif event.kind == Kind.TIMER:
            timers = self.roster[index].timers
            timers[event.item] -= 1
            if not timers[event.item]:
                del timers[event.item]
