"""Runs a guest in this process against a scripted supervisor: no fork, no ring, no clock.

Loaded by path from the conftest files that need it (tests are no package).
"""

import functools
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wasmtime

from lockstep.engine.record import (
    FLAG_RAW,
    PEER_NONE,
    Kind,
    Outcome,
    Record,
    TurnEnd,
    decode,
    decode_end,
    encode,
    encode_wake,
)
from lockstep.workers.agent.modules import compile_module
from lockstep.workers.agent.process import AgentSpec, agent_main

GUESTS = Path(__file__).resolve().parent
ROOT = GUESTS.parents[1]
FOLDERS = {"": GUESTS, "vote": ROOT / "examples" / "vote", "bench": ROOT / "bench" / "guests"}
CLOSE = encode(Kind.CLOSE)

FUEL_PER_STEP = 0  # Of agents whose test does not say; a fixture sets it.

RAW_RESULT = struct.Struct("<4I2Q")


@dataclass(frozen=True)
class Turn:
    """One turn as it left the process."""

    end: TurnEnd
    records: tuple[Record, ...]
    raw: bytes

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.end.outcome)

    def payloads(self, kind: Kind) -> list[bytes]:
        return [each.payload for each in self.records if each.kind == kind]

    @property
    def emitted(self) -> list[tuple[int, bytes]]:
        return [(each.item, each.payload) for each in self.records if each.kind == Kind.EMIT]

    @property
    def logs(self) -> list[str]:
        return [payload.decode() for payload in self.payloads(Kind.LOG)]


@dataclass
class Played:
    """What an agent process did: everything it sent, and its exit status."""

    status: int = -1
    ready: int = 0
    turns: list[Turn] = field(default_factory=list)
    accident: str = ""
    # (turn, fuel so far) of each PROGRESS; not compared, as it is no part of what a guest did.
    progress: list[tuple[int, int]] = field(default_factory=list, compare=False)

    @property
    def last(self) -> Turn:
        return self.turns[-1]

    @property
    def emitted(self) -> list[tuple[int, bytes]]:
        return [each for turn in self.turns for each in turn.emitted]

    @property
    def fuels(self) -> list[int]:
        return [turn.end.fuel for turn in self.turns]


Answer = Callable[[Turn], "bytes | None"]


class ScriptedChannel:
    """A supervisor: answers each END with the next events, or with SHUTDOWN for None.

    Args:
        answer: Gives the events that follow a turn.
        steps: Step of each wake; the last one repeats. Default: the turn's number.
        piece: Bytes handed over per `receive`, to show that any cut will do.
    """

    def __init__(self, answer: Answer, steps: Sequence[int] = (), piece: int = 1 << 30) -> None:
        self.played = Played()
        self._answer = answer
        self._steps = steps
        self._piece = piece
        self._kept: list[Record] = []
        self._outbox = b""

    def send(self, records: bytes) -> None:
        for record in decode(records):
            if record.kind == Kind.READY:
                self.played.ready += 1
            elif record.kind == Kind.ACCIDENT:
                self.played.accident = record.payload.decode()
            elif record.kind == Kind.PROGRESS:
                assert (record.flags, record.peer, record.payload) == (0, PEER_NONE, b"")
                self.played.progress.append((record.id, record.item))
            elif record.kind == Kind.END:
                self._ended(record)
            else:
                self._kept.append(record)

    def receive(self) -> bytes:
        if not self._outbox:
            self._outbox = self._next()
        piece, self._outbox = self._outbox[: self._piece], self._outbox[self._piece :]
        return piece

    def exchange(self, records: bytes) -> bytes:
        self.send(records)
        return self.receive()

    def _ended(self, record: Record) -> None:
        raw = b"".join(
            encode(r.kind, r.payload, flags=r.flags, id=r.id, item=r.item, peer=r.peer)
            for r in self._kept
        )
        self.played.turns.append(Turn(decode_end(record), tuple(self._kept), raw))
        self._kept = []

    def _next(self) -> bytes:
        events = self._answer(self.played.last)
        if events is None:
            return encode(Kind.SHUTDOWN)
        turn = len(self.played.turns)
        step = self._steps[min(turn, len(self._steps)) - 1] if self._steps else turn
        return encode_wake(turn, step, 0, events, len(list(decode(events))))


def spec(code: bytes, **changes: Any) -> AgentSpec:
    """An agent with room for everything that a test does not limit."""
    values: dict[str, Any] = {
        "name": "agent",
        "index": 0,
        "replica": 0,
        "seed": 7,
        "code": code,
        "memory_bytes_max": 16 << 20,
        "turn_fuel_max": 10**9,
        "turn_out_bytes_max": 1 << 20,
        "record_bytes_max": 1 << 18,
        "log_lines_max": 1000,
        "log_bytes_max": 65536,
        "table_elements_max": 1000,
        "frozen_epoch_us": 946_684_800_000_000,
        "step_us": 1000,
        "fuel_per_step": FUEL_PER_STEP,
    }
    return AgentSpec(**{**values, **changes})


@functools.cache
def compiled(source: str) -> bytes:
    """Code of a guest by name (`echo`, `vote/judge`, `bench/flood`), or of WebAssembly text."""
    if source.lstrip().startswith("("):
        return compile_module(wasmtime.wat2wasm(source))
    return compile_module(wasm_path(source).read_bytes(), path=source)


def wasm_path(name: str) -> Path:
    folder, _, stem = name.rpartition("/")
    return FOLDERS[folder] / f"{stem}.wasm"


def play(
    source: str,
    batches: Iterable[bytes] = (),
    *,
    answer: Answer | None = None,
    steps: Sequence[int] = (),
    piece: int = 1 << 30,
    **changes: Any,
) -> Played:
    """Run a guest to its end; ``batches`` are the events of turn 1, 2, ..., then SHUTDOWN."""
    if answer is None:
        rest = iter(batches)

        def answer(turn: Turn) -> bytes | None:
            return next(rest, None)

    channel = ScriptedChannel(answer, steps, piece)
    channel.played.status = agent_main(spec(compiled(source), **changes), channel)
    return channel.played


def start(
    config: dict[str, object] | None = None,
    agents: Sequence[str] = ("agent",),
    index: int = 0,
    **names: Sequence[str],
) -> bytes:
    """A START record; ``names`` are those of topics, tools and sources."""
    roster: dict[str, list[str]] = {"agents": list(agents), "models": ["model"]}
    roster |= {"topics": [], "tools": [], "sources": []}
    roster |= {kind: list(found) for kind, found in names.items()}
    payload = {**roster, "agent": agents[index], "config": config or {}}
    text = json.dumps(payload, separators=(",", ":")).encode()
    return encode(Kind.START, text, item=len(agents), peer=index)


def item(number: int, payload: bytes, peer: int = PEER_NONE) -> bytes:
    """An ITEM record."""
    return encode(Kind.ITEM, payload, item=number, peer=peer)


def raw_result(request: Record, text: bytes, status: int = 0) -> bytes:
    """The RESULT of a raw INFER record."""
    head = RAW_RESULT.pack(status, 3, len(text), len(text), 1, 1)
    body = head + text + bytes(-len(text) % 4) + struct.pack(f"<{len(text)}i", *text)
    return encode(
        Kind.RESULT, body, flags=FLAG_RAW, id=request.id, item=request.item, peer=request.peer
    )


def wat_bytes(data: bytes) -> str:
    """A string literal of WebAssembly text."""
    return '"' + "".join(f"\\{byte:02x}" for byte in data) + '"'


def blocking(body: str, data: bytes = b"", *, extra: str = "", pages: int = 2) -> str:
    """A blocking module: ``$turn`` is imported, ``data`` lies at 0, ``body`` is its main."""
    return f"""(module
      (import "lockstep" "turn" (func $turn (param i32 i32 i32 i32) (result i32)))
      {extra}
      (memory (export "memory") {pages})
      (data (i32.const 0) {wat_bytes(data)})
      (func (export "main") {body}))"""


def turn_call(out: int = 0, out_len: int = 0, into: int = 65536, room: int = 65536) -> str:
    """One ``lockstep.turn`` in WebAssembly text; its result is on the stack."""
    args = " ".join(f"(i32.const {each})" for each in (out, out_len, into, room))
    return f"(call $turn {args})"
