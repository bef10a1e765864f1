"""Audit of mailboxes: what each agent must be woken with, reckoned a second time.

Rules 2, 3, 8 and 9 as simply as they can be said: messages in the order in which they take effect,
senders that wait tried again at every tag, timers at the step that they were set for. So in a wake
there may be nothing without its cause, at a tag before, in the history; nothing may be missing;
and no mailbox may hold more messages than its bound, but for those that are recorded as forced.

Nobody starves: an event waits for the end of its agent's turn and for nothing else. When a tag is
closed, no living agent whose turn is over has an event left, nor a timer that was to fire.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from lockstep.engine.effects import TIMER_PAYLOAD
from lockstep.engine.fleet import Fleet
from lockstep.engine.outside import What, from_record
from lockstep.engine.record import (
    FLAG_CALL,
    FLAG_REPLY,
    FLAG_TOPIC,
    PEER_ALL,
    PEER_NONE,
    TAKES_EFFECT,
    TOPIC_SHIFT,
    Kind,
    Outcome,
    Record,
    decode,
)
from lockstep.engine.tag import ORIGIN, Tag


@dataclass
class Turn:
    """A turn that takes effect, perhaps in front of a full mailbox: what it still has to say."""

    records: list[Record]
    ends: bool  # Its agent ends with it.
    left: list[int] = field(default_factory=list)  # Receivers of the first record.


@dataclass
class Box:
    """One agent's events that it has not seen, and what will become some."""

    bound: int
    waits: bool
    alive: bool = True
    busy: bool = True
    messages: list[Record] = field(default_factory=list)
    undelivered: list[Record] = field(default_factory=list)
    answers: list[Record] = field(default_factory=list)
    events: list[int] = field(default_factory=list)  # Arrival numbers.
    timers: list[tuple[Tag, Record]] = field(default_factory=list)
    calls: dict[int, int] = field(default_factory=dict)  # Of tools: request -> number.
    forced: int = 0

    def due(self, tag: Tag) -> list[Record]:
        """Timers that have fired, in the order of rule 2."""
        fired = [timer for timer in self.timers if timer[0] <= tag]
        return [timer for _, timer in sorted(fired, key=lambda timer: timer[0])]

    def full(self) -> bool:
        return len(self.messages) >= self.bound

    def clear(self, tag: Tag) -> None:
        """The agent has seen everything."""
        self.messages, self.undelivered, self.answers, self.events = [], [], [], []
        self.timers = [timer for timer in self.timers if timer[0] > tag]
        self.forced = 0


class MailAudit:
    """Reads the entries of tags, and the answers of steps, in the order of the history.

    Attributes:
        asked: INFER records by agent and request number.
    """

    def __init__(self, fleet: Fleet) -> None:
        groups = [fleet.groups[agent.group] for agent in fleet.agents]
        self._fleet = fleet
        self._names = [agent.name for agent in fleet.agents]
        self._boxes = [Box(group.mailbox_max, group.mailbox_full == "wait") for group in groups]
        self._topics: list[dict[int, None]] = [
            {n: None for n, group in enumerate(groups) if topic in group.topics}
            for topic in fleet.schedule.topics
        ]
        self._parked: dict[int, Turn] = {}
        self._open: dict[tuple[int, int], tuple[int, int]] = {}  # (caller, call): callee, item.
        self._owner: dict[int, int] = {}  # Ticket -> agent.
        self._answers: dict[Tag, list[tuple[int, Record]]] = {}  # (ticket, record), to come.
        self._said: dict[int, bytes] = {}  # Tool call -> what came.
        self._calling: list[tuple[int, int]] = []  # TOOL_CALLs of this tag: agent, request.
        self._admitted: dict[int, None] = {}  # Items.
        self._failed: dict[int, None] = {}  # Likewise.
        self._tag: Tag = (-1, 0)
        self.asked: dict[tuple[int, int], Record] = {}

    def step(self, step: int, ended: Iterable[tuple[int, Record]]) -> None:
        """A step was executed; ``ended`` are its tickets and their answers."""
        if found := sorted(ended, key=lambda answer: answer[0]):
            self._answers[step + 1, 0] = found

    def tag(self, tag: Tag, records: list[Record]) -> None:
        """One tag was processed."""
        self._tag = tag
        assert not any(due < tag for due in self._answers), "an answer comes behind its step"
        for box in self._idle():
            assert not any(due < tag for due, _ in box.timers), "a timer fires at its step"
        of: defaultdict[int, list[Record]] = defaultdict(list)
        for record in records:
            of[record.kind].append(record)
        if Kind.STOP in of:
            return  # Nothing takes effect any more.
        for forced in of[Kind.FORCED]:
            self._force(forced)
        self._take_effect(of[Kind.EFFECT])
        for called, (agent, request) in zip(of[Kind.CALLED], self._calling, strict=True):
            assert called.peer == agent
            self._boxes[agent].calls[request] = called.id
        self._calling = []
        self._owner |= {ticket.id: ticket.peer for ticket in of[Kind.TICKET]}
        for ticket, record in self._answers.pop(tag, []):
            if (box := self._boxes[self._owner[ticket]]).alive:
                box.answers.append(record)
        for record in of[Kind.OUTSIDE]:
            self._came(record)
        self._admitted |= {admitted.item: None for admitted in of[Kind.ADMIT]}
        self._failed |= {outcome.item: None for outcome in of[Kind.OUTCOME] if outcome.flags}
        for record in of[Kind.TURN]:
            if tag != ORIGIN:
                self._woken(record)
        for box in self._idle():
            assert not self._left(box), "an agent with events is woken"

    def finished(self) -> None:
        """The run came to its natural end: nobody waits for anything."""
        assert not self._parked and not self._answers
        assert not any(box.timers or box.calls for box in self._idle())

    # -- effects ------------------------------------------------------------------------------

    def _take_effect(self, effects: list[Record]) -> None:
        applying = list(self._parked.items())
        applying += [(effect.peer, self._begun(effect)) for effect in effects]
        for agent, turn in [each for each in applying if self._advance(*each)]:
            self._boxes[agent].busy = False
            if turn.ends:
                self._bury(agent)

    def _begun(self, effect: Record) -> Turn:
        if effect.flags not in TAKES_EFFECT:
            return Turn([], True)
        records = list(decode(effect.payload))
        self.asked |= {(effect.peer, r.id): r for r in records if r.kind == Kind.INFER}
        return Turn(records, effect.flags != Outcome.BLOCKED)

    def _advance(self, agent: int, turn: Turn) -> bool:
        """Whether the turn is over; else its agent waits for room."""
        while turn.records:
            record = turn.records[0]
            if record.kind != Kind.SEND:
                self._apply(agent, turn, record)
            elif not self._send(agent, turn, record):
                self._parked[agent] = turn
                return False
            del turn.records[0]
        self._parked.pop(agent, None)
        return True

    def _apply(self, agent: int, turn: Turn, record: Record) -> None:
        match record.kind:
            case Kind.SUBSCRIBE:
                topic = self._topics[record.flags >> TOPIC_SHIFT]
                topic.pop(agent, None)
                if not record.id:
                    topic[agent] = None
            case Kind.SET_TIMER:
                (steps,) = TIMER_PAYLOAD.unpack(record.payload)
                timer = Record(Kind.TIMER, 0, record.id, record.item, PEER_NONE, b"")
                self._boxes[agent].timers.append(((self._tag[0] + steps, 0), timer))
            case Kind.TOOL_CALL:
                self._calling.append((agent, record.id))
            case Kind.DONE if not record.item:
                turn.ends = True

    def _send(self, agent: int, turn: Turn, record: Record) -> bool:
        turn.left = turn.left or self._receivers(agent, record)
        while turn.left:
            if self._must_wait(turn.left[0]):
                return False
            self._deliver(agent, turn.left.pop(0), record)
        return True

    def _receivers(self, agent: int, record: Record) -> list[int]:
        if record.flags & FLAG_TOPIC:
            return sorted(self._topics[record.flags >> TOPIC_SHIFT])
        if record.peer == PEER_ALL:
            return [n for n, box in enumerate(self._boxes) if box.alive and n != agent]
        return [record.peer]

    def _must_wait(self, receiver: int) -> bool:
        box = self._boxes[receiver]
        return box.waits and box.full() and box.alive

    def _deliver(self, sender: int, receiver: int, sent: Record) -> None:
        box = self._boxes[receiver]
        if not box.alive or (box.full() and not box.waits):
            self._bounce(sender, receiver, sent)
            return
        if sent.flags & FLAG_CALL:
            self._open[sender, sent.id] = (receiver, sent.item)
        elif sent.flags & FLAG_REPLY and self._open.get((receiver, sent.id), (-1,))[0] == sender:
            del self._open[receiver, sent.id]
        box.messages.append(sent._replace(kind=Kind.MESSAGE, peer=sender))

    def _bounce(self, sender: int, receiver: int, sent: Record) -> None:
        if (box := self._boxes[sender]).alive:
            box.undelivered.append(sent._replace(kind=Kind.UNDELIVERED, peer=receiver))

    def _bury(self, agent: int) -> None:
        box = self._boxes[agent]
        box.alive = False
        for topic in self._topics:
            topic.pop(agent, None)
        for sent in box.messages:
            if self._open.get((sent.peer, sent.id), (-1,))[0] == agent and sent.flags & FLAG_CALL:
                del self._open[sent.peer, sent.id]
            self._bounce(sent.peer, agent, sent)
        mine = {call: to for call, to in self._open.items() if agent in (call[0], to[0])}
        for (caller, number), (callee, item) in mine.items():
            del self._open[caller, number]
            if caller != agent:
                sent = Record(Kind.SEND, FLAG_CALL, number, item, callee, b"")
                self._bounce(caller, callee, sent)

    def _force(self, forced: Record) -> None:
        circle = [self._names.index(name) for name in forced.payload.decode().split(" -> ")]
        assert circle[0] == circle[-1]
        busy = [agent for agent, box in enumerate(self._boxes) if box.busy]
        assert all(agent in self._parked for agent in busy), "nothing runs"
        for waiting, full in pairwise(circle):
            assert self._parked[waiting].left[0] == full and self._must_wait(full)
        assert forced.peer == next(agent for agent in self._parked if agent in circle)
        turn = self._parked[forced.peer]
        receiver = turn.left.pop(0)
        self._deliver(forced.peer, receiver, turn.records[0])
        self._boxes[receiver].forced += 1
        if not turn.left:
            del turn.records[0]

    # -- what else comes, and who is woken ------------------------------------------------------

    def _came(self, record: Record) -> None:
        event = from_record(record)
        if event.what == What.TOOL:
            self._said[event.source] = event.payload
        elif event.what == What.EVENT:
            to = self._fleet.sources[event.source].to
            for agent, box in zip(self._fleet.agents, self._boxes, strict=True):
                if box.alive and self._fleet.groups[agent.group].name in to:
                    box.events.append(event.number)

    def _woken(self, turn: Record) -> None:
        box = self._boxes[turn.peer]
        assert box.alive and not box.busy
        events = list(decode(turn.payload))
        assert events and (events[0].kind == Kind.START) == (turn.id == 1)

        def of(*kinds: int) -> list[Record]:
            return [event for event in events if event.kind in kinds]

        ended = [e for e in of(Kind.CANCELLED) if e.id]  # Requests, with payload, and tool calls.
        assert len(of(Kind.MESSAGE)) <= box.bound + box.forced, "mailboxes keep their bounds"
        assert of(Kind.MESSAGE) == box.messages, "each message, in the order of effect"
        assert of(Kind.UNDELIVERED) == box.undelivered, "what could not be delivered comes back"
        assert of(Kind.TIMER) == box.due(self._tag), "a timer fires at its step"
        assert [event.id for event in of(Kind.EVENT)] == box.events
        answers = [e for e in events if e.kind == Kind.RESULT or (e in ended and e.payload)]
        assert answers == box.answers, "an answer comes behind its step"
        assert all(event.item in self._admitted for event in of(Kind.ITEM)), "items enter first"
        assert all(e.item in self._failed for e in of(Kind.CANCELLED) if not e.id)
        for event in (*of(Kind.TOOL_RESULT), *(e for e in ended if not e.payload)):
            number = box.calls.pop(event.id)
            if event.kind == Kind.TOOL_RESULT:
                assert self._said[number] == event.payload, "a tool's answer came before"
        box.clear(self._tag)
        assert not self._left(box)
        box.busy = True

    def _idle(self) -> Iterator[Box]:
        return (box for box in self._boxes if box.alive and not box.busy)

    def _left(self, box: Box) -> bool:
        """Whether there is something that the agent has not seen."""
        mail = box.messages or box.undelivered or box.answers or box.events
        answered = any(number in self._said for number in box.calls.values())
        return bool(mail or box.due(self._tag) or answered)
