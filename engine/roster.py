"""The roster: every agent's logical state and mailbox, and who has to be looked at in a tag."""

from dataclasses import dataclass, field

from lockstep.engine import tag as tags
from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.mailbox import Event, Mailbox
from lockstep.engine.record import PEER_NONE, Kind, encode
from lockstep.engine.strict_json import dumps
from lockstep.engine.tag import Tag


@dataclass(slots=True)
class AgentState:
    """One agent's logical state."""

    messages_max: int
    waits: bool  # A message beyond that makes its sender wait; else it comes back.
    turn: int = 0  # Number of the turn it is in, or was in last.
    busy: bool = True  # A turn is not over: its events are kept until its effect tag.
    alive: bool = True
    mailbox: Mailbox = field(default_factory=Mailbox)
    timers: dict[int, int] = field(default_factory=dict)  # Item -> timers set and not fired.


class Roster:
    """Agents by index. One writer: what is being processed at the current tag."""

    def __init__(self, fleet: Fleet) -> None:
        self.names = [agent.name for agent in fleet.agents]
        groups = [fleet.groups[agent.group] for agent in fleet.agents]
        self.agents = [AgentState(g.mailbox_max, g.mailbox_full == "wait") for g in groups]
        self.tag: Tag = tags.ORIGIN
        self._touched: dict[int, None] = {}
        self._applied = 0  # Running number of what goes into mailboxes, within a run.

    def __len__(self) -> int:
        return len(self.agents)

    def __getitem__(self, agent: int) -> AgentState:
        return self.agents[agent]

    def put(
        self,
        agent: int,
        event_class: int,
        key: int,
        record: bytes,
        kind: int = 0,
        item: int = 0,
        peer: int = PEER_NONE,
        count: int = 1,
    ) -> None:
        """Something becomes deliverable to an agent at the current tag.

        Args:
            agent: Its index.
            event_class: `EventClass`: order among what is deliverable at one tag.
            key: Order within the class.
            record: As the guest will read it; several, one behind the other, if ``count`` > 1.
            kind: Of the record, where it matters later.
            item: Likewise.
            peer: Likewise.
            count: Records in it.
        """
        self._applied = order = self._applied + 1
        fields = self.tag, event_class, key, order, kind, item, peer, record, count
        self.deliver(agent, tuple.__new__(Event, fields))

    def deliver(self, agent: int, event: Event) -> None:
        """An event that was made before (a timer) reaches its agent's mailbox."""
        self.agents[agent].mailbox.put(event)
        self._touched[agent] = None

    def touch(self, agent: int) -> None:
        """The agent's turn is over: it may have to be woken."""
        self._touched[agent] = None

    def take_touched(self) -> list[int]:
        """Agents that may have to be woken at this tag, by index."""
        touched, self._touched = sorted(self._touched), {}
        return touched

    def number(self) -> int:
        """Order of application."""
        self._applied += 1
        return self._applied

    def living(self) -> list[int]:
        """Agents that have not ended."""
        return [index for index, agent in enumerate(self.agents) if agent.alive]


def start_records(fleet: Fleet) -> list[bytes]:
    """Every agent's START: who it is, who the others are, and its config as JSON.

    Raises:
        UsageError: one is larger than a record may be (a huge config or roster).
    """
    names = [agent.name for agent in fleet.agents]
    rest = {
        "models": [model.name for model in fleet.models],
        "topics": list(fleet.schedule.topics),
        "tools": [tool.name for tool in fleet.tools],
        "sources": [source.name for source in fleet.sources],
    }
    records = []
    for agent in fleet.agents:
        config = fleet.groups[agent.group].config
        payload = dumps({"agent": agent.name, "agents": names, **rest, "config": config})
        record = encode(Kind.START, payload, id=agent.replica, item=len(names), peer=agent.index)
        if len(record) > fleet.record_bytes_max:
            raise UsageError(
                f"START of agent {agent.name} (its config and {len(names)} names) has "
                f"{len(record)} bytes, [fleet] record_bytes_max is {fleet.record_bytes_max}"
            )
        records.append(record)
    return records
