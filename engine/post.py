"""Post: messages between agents, and senders that wait for room (rule 9).

Nothing is dropped: a message is delivered, comes back as UNDELIVERED, or makes its sender wait.
"Full" is counted in messages at a tag, never the state of a ring.
"""

from lockstep.engine.calls import CallBook
from lockstep.engine.effects import Turn
from lockstep.engine.fleet import Fleet
from lockstep.engine.flood import Flood
from lockstep.engine.history import TagEntry
from lockstep.engine.mailbox import Event, EventClass
from lockstep.engine.record import (
    FLAG_CALL,
    FLAG_REPLY,
    FLAG_TOPIC,
    PEER_ALL,
    TOPIC_SHIFT,
    Kind,
    Record,
    decode,
    encode,
)
from lockstep.engine.roster import Roster

_MESSAGE, _OF_MESSAGES = int(Kind.MESSAGE), int(EventClass.MESSAGE)


class Applying:
    """A turn whose records take effect one after another; parked in front of one, perhaps.

    Attributes:
        records: Of the turn; empty while it is taken as a flood.
        flood: The turn as a whole, if it is nothing but plain messages.
        at: First record that has not taken effect.
        left: Of a SEND at ``at`` that has begun: receivers that have not got it.
        infers: Requests met at this tag: their tickets are dealt when every agent had its go.
        late_cancels: Numbers among those that were cancelled behind them.
        said_done: The agent has ended by its own word.
    """

    __slots__ = (
        *("agent", "at", "flood", "infers", "late_cancels", "left", "records", "said_done", "turn"),
    )

    def __init__(
        self, agent: int, turn: Turn, records: list[Record], flood: Flood | None = None
    ) -> None:
        self.agent, self.turn = agent, turn
        self.records, self.flood = records, flood
        self.at = 0
        self.left: list[int] = []
        self.infers: list[Record] = []
        self.late_cancels: list[int] = []
        self.said_done = False


class Post:
    """Routes SEND records. One writer: the world, at the tag that is being processed.

    Attributes:
        calls: Calls between agents that wait for a reply.
        parked: Senders that wait for room, in the order in which they parked.
        freed: Whether a mailbox that somebody waits for was taken at this tag.
        messages: Deliveries so far, those that came back included.
    """

    def __init__(self, fleet: Fleet, roster: Roster) -> None:
        self._roster = roster
        self.calls = CallBook(len(roster))
        self._subscribers: list[dict[int, None]] = [{} for _ in fleet.schedule.topics]
        index = {name: n for n, name in enumerate(fleet.schedule.topics)}
        for agent in fleet.agents:
            for topic in fleet.groups[agent.group].topics:
                self._subscribers[index[topic]][agent.index] = None
        self.parked: dict[int, Applying] = {}
        self.freed = False
        self.messages = 0

    def subscribe(self, agent: int, record: Record) -> None:
        """SUBSCRIBE takes effect."""
        topic = self._subscribers[record.flags >> TOPIC_SHIFT]
        if record.id:
            topic.pop(agent, None)
        else:
            topic[agent] = None

    def send(self, applying: Applying, record: Record, entry: TagEntry) -> bool:
        """Deliver a message to whom it goes; False: somebody has no room, the sender parks."""
        if not applying.left:
            if not record.flags and record.peer != PEER_ALL and not self._must_wait(record.peer):
                self._deliver(applying.agent, record.peer, record, entry)  # Nearly all of them.
                return True
            applying.left = self._receivers(applying.agent, record)
        while applying.left:
            receiver = applying.left[0]
            if self._must_wait(receiver):
                return False
            self._deliver(applying.agent, receiver, record, entry)
            del applying.left[0]
        return True

    def send_flood(self, agent: int, flood: Flood, entry: TagEntry) -> bool:
        """Deliver a whole turn of plain messages; False: not everybody has room for all of it."""
        for receiver, count in flood.counts:
            state = self._roster[receiver]
            if not state.alive or state.mailbox.messages + count > state.messages_max:
                return False
        self.messages += len(flood.batch)
        entry.text(flood.text())
        for receiver, count, records in flood.shares():
            self._roster.put(
                receiver, EventClass.MESSAGE, self._roster.number(), records,
                Kind.MESSAGE, 0, agent, count,
            )  # fmt: skip
        return True

    def accept_first(self, entry: TagEntry) -> str:
        """Deliver one message over the bound, since nothing else can happen.

        It is the first that parked among those of the circle: whoever waits for the circle from
        outside would fill a mailbox and free nobody.

        Returns:
            The circle of agents that wait for one another, as text.
        """
        members = self._members()
        applying = next(p for agent, p in self.parked.items() if agent in members)
        circle = self._named(members)
        record = applying.records[applying.at]
        self._deliver(applying.agent, applying.left.pop(0), record, entry)
        if not applying.left:
            applying.at += 1
        entry.add(encode(Kind.FORCED, circle.encode(), peer=applying.agent))
        return circle

    def circle(self) -> str:
        """The circle that the first parked sender waits in, or for."""
        return self._named(self._members())

    def took(self, agent: int) -> None:
        """An agent's mailbox was taken: whoever waits for it may try again."""
        if any(p.left and p.left[0] == agent for p in self.parked.values()):
            self.freed = True

    def bounce(self, sender: int, receiver: int, sent: Record) -> None:
        """A message comes back, if its sender is there to take it."""
        if self._roster[sender].alive:
            record = encode(
                Kind.UNDELIVERED, sent.payload,
                flags=sent.flags, id=sent.id, item=sent.item, peer=receiver,
            )  # fmt: skip
            self._roster.put(sender, EventClass.UNDELIVERED, self._roster.number(), record)

    def end(self, agent: int, mail: list[Event]) -> None:
        """An agent has ended: its mail goes back, its calls end, nobody waits for it."""
        self.took(agent)
        self.parked.pop(agent, None)
        for topic in self._subscribers:
            topic.pop(agent, None)
        for event in mail:
            if event.kind == Kind.MESSAGE:
                for sent in decode(event.record):
                    if sent.flags & FLAG_CALL and self.calls.waits(event.peer, sent.id, agent):
                        self.calls.close(event.peer, sent.id)
                    self.bounce(event.peer, agent, sent)
        for caller, number, item in self.calls.end(agent):
            self.bounce(caller, agent, Record(Kind.SEND, FLAG_CALL, number, item, agent, b""))

    def _receivers(self, agent: int, record: Record) -> list[int]:
        if record.flags & FLAG_TOPIC:
            return sorted(self._subscribers[record.flags >> TOPIC_SHIFT])
        if record.peer == PEER_ALL:
            return [peer for peer in self._roster.living() if peer != agent]
        return [record.peer]

    def _must_wait(self, receiver: int) -> bool:
        state = self._roster.agents[receiver]
        return state.mailbox.messages >= state.messages_max and state.waits and state.alive

    def _deliver(self, sender: int, receiver: int, sent: Record, entry: TagEntry) -> None:
        """To the mailbox (a sender that must wait has done so), or back."""
        self.messages += 1
        entry.message(sender, receiver, sent.payload)
        state = self._roster.agents[receiver]
        # A full one that its senders wait for has room now, or this message is forced.
        full = not state.waits and state.mailbox.messages >= state.messages_max
        if full or not state.alive:
            self.bounce(sender, receiver, sent)
            return
        if sent.flags & FLAG_CALL:
            self.calls.open(sender, sent.id, receiver, sent.item)
        elif sent.flags & FLAG_REPLY and self.calls.waits(receiver, sent.id, sender):
            self.calls.close(receiver, sent.id)
        message = encode(
            _MESSAGE, sent.payload,
            flags=sent.flags, id=sent.id, item=sent.item, peer=sender,
        )  # fmt: skip
        self._roster.put(
            receiver, _OF_MESSAGES, self._roster.number(), message,
            _MESSAGE, sent.item, sender,
        )  # fmt: skip

    def _members(self) -> list[int]:
        # Nothing runs or pends, so whoever is waited for is parked, too: this ends in a circle.
        path: dict[int, None] = {}
        agent = next(iter(self.parked))
        while agent not in path:
            path[agent] = None
            agent = self.parked[agent].left[0]
        agents = list(path)
        return agents[agents.index(agent) :]

    def _named(self, members: list[int]) -> str:
        names = [self._roster.names[agent] for agent in members]
        return " -> ".join([*names, names[0]])
