"""A sequencer driven by hand, and the log of what it wants done, as text."""

import struct
from collections.abc import Sequence

import numpy as np

from lockstep.engine import actions
from lockstep.engine import tag as tags
from lockstep.engine.effects import Turn
from lockstep.engine.fleet_file import parse
from lockstep.engine.items import InputItem
from lockstep.engine.outside import Outside, What, from_record
from lockstep.engine.record import (
    FLAG_CALL,
    FLAG_REPLY,
    FLAG_TOPIC,
    TOPIC_SHIFT,
    Kind,
    decode,
    decode_at,
    encode,
)
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.strict_json import loads
from lockstep.engine.wire import RESULT_SLOT, FromEngine, StepReport, step_report

QUANTUM = 100


class Script:
    """A sequencer, driven by hand. Every call gives the log of what it caused."""

    def __init__(
        self,
        agents: str,
        items: int = 0,
        fleet: str = "",
        schedule: str = "",
        rest: str = "",
        recorded: Sequence[bytes] | None = None,
    ) -> None:
        text = f"[fleet]\n{fleet}\n[schedule]\nfuel_per_step = {QUANTUM}\n{schedule}\n"
        text += f"[models.m]\npath = 'm'\n{rest}\n"
        for line in agents.strip().splitlines():
            name, _, settings = line.strip().partition(" ")
            lines = settings.replace(";", "\n")
            text += f"[agents.{name}]\nmodule = 'x'\n{lines}\n"
        parsed = parse(text.encode(), "f.toml")
        self.names = [agent.name for agent in parsed.agents]
        inputs = [InputItem(n, b"in%d" % n) for n in range(1, items + 1)]
        self.sequencer = Sequencer(parsed, inputs, recorded)
        self.actions: list[actions.Action] = []
        self._made_of = (agents, items, fleet, schedule, rest)

    def another(self, recorded: Sequence[bytes]) -> "Script":
        """A fresh one of the same fleet."""
        return Script(*self._made_of, recorded)

    def start(self) -> list[str]:
        self.sequencer.start()
        return self._pump()

    def ends(
        self, agent: str, *records: bytes, fuel: int = 0, outcome: int = 0, reason: str = ""
    ) -> list[str]:
        """The agent's turn is over, physically."""
        index = self.names.index(agent)
        number = self.sequencer.world.agents[index].turn
        turn = Turn(number, fuel, outcome, reason, b"".join(records))
        self.sequencer.turn_ended(index, turn)
        return self._pump()

    def burnt(self, agent: str, fuel: int) -> list[str]:
        index = self.names.index(agent)
        number = self.sequencer.world.agents[index].turn
        self.sequencer.fuel_published(index, number, fuel)
        return self._pump()

    def steps(self, number: int, *answers: tuple[int, int]) -> list[str]:
        """The engine reports a step; ``answers`` are (ticket, the agent's request number)."""
        self.sequencer.step_reported(report(number, answers))
        return self._pump()

    def comes(self, what: What, source: int, payload: bytes = b"", flags: int = 0) -> list[str]:
        """Something comes in from outside."""
        self.sequencer.outside(what, source, payload, flags)
        return self._pump()

    def kept(self) -> list[bytes]:
        """What the journal keeps besides the history."""
        return [action.record for action in self.actions if isinstance(action, actions.Keep)]

    def history(self) -> list[bytes]:
        """Every entry so far."""
        return [action.entry.body for action in self.actions if isinstance(action, actions.Append)]

    def _pump(self) -> list[str]:
        done = self.sequencer.pump()
        self.actions += done
        return [self.shown(action) for action in done]

    def shown(self, action: actions.Action) -> str:
        match action:
            case actions.Wake(agent, turn, tag, events, count):
                found = [shown_event(event) for event in decode(events)]
                assert len(found) == count
                return f"wake {self.names[agent]}#{turn} at {tag[0]}.{tag[1]}: {', '.join(found)}"
            case actions.Issue(ticket, _):
                return f"ticket {ticket.number} of {self.names[ticket.agent]} due {ticket.due}"
            case actions.Revoke(number, due):
                return f"revoke {number} due {due}"
            case actions.Grant(limit, applied):
                return f"grant {limit} knowing {applied}"
            case actions.Append(entry):
                first = next(decode(entry.body))
                kind = "tag" if first.kind == Kind.TAG else "step"
                return f"{kind} {first.id}" + (f".{first.peer}" if kind == "tag" else "")
            case actions.Output(line):
                value = loads(line)
                said = value.get("error", value.get("payload"))
                return f"output {value['id']}: {said}"
            case actions.Log(agent, level, stream, _, text):
                return f"log {self.names[agent]} {level} {stream}: {text.decode()}"
            case actions.Keep(record):
                kept, _ = decode_at(record, 0)
                if kept.kind != Kind.OUTSIDE:
                    return f"keep {kept.flags} {kept.id} {kept.item}"
                event: Outside = from_record(kept)
                return f"keep outside {event.number} at {tags.text(event.tag)}"
            case actions.CallTool(call, agent, tool, payload):
                return f"tool {tool} for {self.names[agent]} call {call}: {payload.decode()}"
            case actions.StopTool(call):
                return f"stop tool call {call}"
            case actions.Bury(agent, reason):
                return f"bury {self.names[agent]}: {reason}"
            case actions.Finish(state, reason):
                return f"{state}: {reason}"
        raise AssertionError(action)


def shown_event(event: object) -> str:
    kind, _, id, item, _, payload = event  # type: ignore[misc]
    name = Kind(kind).name
    if kind == Kind.START:
        return name
    return f"{name} {id}/{item} {payload.decode(errors='replace')}".rstrip()


def report(number: int, answers: Sequence[tuple[int, int]] = ()) -> StepReport:
    rows = [(FromEngine.TOKEN, 0, 0, ticket, 5, 0) for ticket, _ in answers]
    rows += [(FromEngine.END, 0, 0, ticket, 1, 3) for ticket, _ in answers]
    rows.append((FromEngine.STEP, 0, 0, 0, number, 0))
    records = b"".join(
        encode(Kind.RESULT, b"of %d" % ticket, id=request) for ticket, request in answers
    )
    return step_report(np.array(rows, RESULT_SLOT), records)


def send(peer: int, payload: bytes, id: int = 0) -> bytes:
    return encode(Kind.SEND, payload, peer=peer, id=id)


def call(peer: int, number: int, payload: bytes = b"") -> bytes:
    return encode(Kind.SEND, payload, flags=FLAG_CALL, id=number, peer=peer)


def reply(peer: int, number: int, payload: bytes = b"") -> bytes:
    return encode(Kind.SEND, payload, flags=FLAG_REPLY, id=number, peer=peer)


def to_topic(topic: int, payload: bytes) -> bytes:
    return encode(Kind.SEND, payload, flags=FLAG_TOPIC | topic << TOPIC_SHIFT)


def subscribe(topic: int, off: bool = False) -> bytes:
    return encode(Kind.SUBSCRIBE, flags=FLAG_TOPIC | topic << TOPIC_SHIFT, id=int(off))


def infer(request: int, item: int = 0) -> bytes:
    return encode(Kind.INFER, b"{}", id=request, item=item, peer=0)


def emit(item: int, payload: bytes) -> bytes:
    return encode(Kind.EMIT, payload, item=item)


def timer(id: int, steps: int) -> bytes:
    return encode(Kind.SET_TIMER, struct.pack("<Q", steps), id=id)
