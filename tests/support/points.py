"""Points: where a process can be made to die, by name, and the functions that each lies in.

A point before something is named "before", one behind it "after"; between are those that lie in
the middle of one function: records that were copied into a ring and not published, a write that
was half done, a step's results of which only some slots are there. To get between, what the product
does in one call is done in two, which the rings and the kernel allow anybody (a ring may take
less than it is given, a write may be short).
"""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from killing import SUPERVISOR, Killer

from lockstep.engine.record import HEADER, Kind, aligned
from lockstep.shm import doorbell, slots
from lockstep.shm.ring import RingWriter
from lockstep.shm.side import Producer, Side
from lockstep.shm.walk import PREFIX
from lockstep.workers import (
    crew,
    engine_links,
    folder,
    ledger,
    links,
    resumption,
    seat,
    spawn,
    storage,
    supervisor,
)
from lockstep.workers.agent import channel, guest
from lockstep.workers.outside import tool_call, tool_process

AGENT_POINTS = (
    "agent: starting",
    "agent: idle, before it waits for its bell",
    "agent: events taken, ring's tail not moved",
    "agent: events taken, guest not entered",
    "agent: in a host call",
    "agent: in the middle of computing",
    "agent: records copied, ring's head not moved",
    "agent: records published, END not",
    "agent: END published, bell not rung",
    "agent: bell rung",
)
INFERENCE_POINTS = (
    "inference: models loaded",
    "inference: idle, before it waits for its bell",
    "inference: tickets taken",
    "inference: before a step",
    "inference: before a chunk of prefill",
    "inference: after a chunk of prefill",
    "inference: in the middle of a copy",
    "inference: in the middle of a copy to a row that rests",
    "inference: a copy done, its count not written",
    "inference: copies done and counted",
    "inference: after a chunk behind copies",
    "inference: after the run of a decode",
    "inference: step done, results not pushed",
    "inference: answers pushed, slots not",
    "inference: half of the slots pushed",
    "inference: slots copied, ring's head not moved",
    "inference: step reported",
)
SUPERVISOR_POINTS = (
    "supervisor: an agent was forked",
    "supervisor: turns taken",
    "supervisor: reports copied, ring's tail not moved",
    "supervisor: step reports taken",
    "supervisor: before a journal write",
    "supervisor: half of a journal write done",
    "supervisor: after a journal write, before what it allows",
    "supervisor: an agent was woken",
    "supervisor: tickets sent",
    "supervisor: before an output write",
    "supervisor: half of an output write done",
    "supervisor: after an output write, before what it allows",
    "supervisor: run over, nobody told",
    "supervisor: everybody ended, journal open",
    "supervisor: journal closed, no summary",
    "supervisor: summary written",
)
TOOL_POINTS = (
    "tools: call taken, command not started",
    "tools: command started",
    "tools: command ended, answer not sent",
    "tools: answer sent",
)
RESUMING_POINTS = (
    "resuming: run held, record not read",
    "resuming: replayed, nothing changed yet",
    "resuming: torn tail cut",
    "resuming: record told to the ledger",
)
STARTING = "starting: in a new process"  # Whatever it is for: a stage names the process.
SYNC = "the sync process"
SYNC_POINTS = (
    "sync: idle, before it waits for a request",
    "sync: before a sync",
    "sync: synced, nobody told",
)


def install(killer: Killer) -> None:
    """Wrap the functions of this process; those of libraries that a child loads, there."""
    _name_children(killer)
    _in_agents(killer)
    _in_rings(killer)
    _in_supervisor(killer)
    _in_resumption(killer)
    _in_tools(killer)
    _in_files(killer)


def leave_out_the_death_signal() -> None:
    """The mutant: children do not die with the supervisor."""
    prctl = spawn._LIBC.prctl

    def without(option: int, *arguments: int) -> Any:
        return 0 if option == spawn.PR_SET_PDEATHSIG else prctl(option, *arguments)

    changed: Any = spawn._LIBC
    changed.prctl = without


def _wrap(
    owner: Any,
    name: str,
    before: Callable[..., None] | None = None,
    after: Callable[..., None] | None = None,
) -> None:
    """Call something before or after a method, with its arguments."""
    real = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if before is not None:
            before(*arguments)
        result = real(*arguments, **named)
        if after is not None:
            after(*arguments)
        return result

    setattr(owner, name, wrapped)


def _name_children(killer: Killer) -> None:
    """Each child knows who it is, and wraps what only it loads."""
    fork = spawn.fork

    def named(name: str, body: Callable[[], int], keep: Any) -> Any:
        def begin() -> int:
            killer.be(name)
            killer.passing(STARTING)
            if name == "inference":
                _in_inference(killer)
            if name.startswith("agent "):
                killer.passing("agent: starting")
            return body()

        child = fork(name, begin, keep)
        if name.startswith("agent "):
            killer.passing("supervisor: an agent was forked")
        return child

    def one_by_one(births: Sequence[spawn.Birth], born: list[spawn.Child]) -> None:
        for name, body, keep, (advise, start, length) in births:
            advise(mmap.MADV_DOFORK, start, length)
            born.append(named(name, body, keep))
            advise(mmap.MADV_DONTFORK, start, length)

    changed: Any = spawn
    changed.fork, changed.fork_all = named, one_by_one

    _wrap(crew.Crew, "prepare_agents", before=lambda *_: killer.arm())


def _wrap_waits(before: Callable[..., None]) -> None:
    """Waiting for ever, by each kind of bell that has a way of its own."""
    for kind in (doorbell.Doorbell, doorbell.EventDoorbell, doorbell.TrustedDoorbell):
        _wrap(kind, "wait", before=before)


def _in_agents(killer: Killer) -> None:
    """In agent processes: calls out of the guest, what is sent, bells; by either way of a turn."""

    def at(point: str) -> Callable[..., None]:
        def pass_by(*_: Any) -> None:
            if killer.process.startswith("agent "):
                killer.passing(f"agent: {point}")

        return pass_by

    for name in ("turn", "submit", "answer"):
        _wrap(guest.Guest, name, before=at("in a host call"))
    _wrap(guest.Guest, "_begun", after=at("events taken, guest not entered"))
    _wrap(guest.Guest, "_publish", before=at("in the middle of computing"))
    _wrap_waits(at("idle, before it waits for its bell"))

    def before_ring(*_: Any) -> None:
        if killer.ended:
            killer.passing("agent: END published, bell not rung")

    _wrap(doorbell.PipeDoorbell, "ring", before_ring, at("bell rung"))
    changed: Any = channel.RingChannel
    send, exchange = changed.send, changed.exchange

    def send_records_first(self: Any, records: bytes) -> bytes:
        """What lies before an END by itself, so that there is a moment between. The rest."""
        point = "agent: records published, END not"
        cut = _offset_of_end(records)
        if not 0 < cut < len(records) or not (killer.expects(point) or killer.plan.census):
            return records
        send(self, records[:cut])
        killer.passing(point)
        return records[cut:]

    changed.send = lambda self, records: send(self, send_records_first(self, records))
    changed.exchange = lambda self, records: exchange(self, send_records_first(self, records))


def _offset_of_end(records: bytes) -> int:
    """Where the END of a turn lies; behind everything if there is none."""
    offset = 0
    while offset < len(records):
        size, kind = HEADER.unpack_from(records, offset)[:2]
        if kind == Kind.END:
            return offset
        offset += aligned(size)
    return len(records)


Moving = Callable[[int, int], None]  # What a cursor is, and what it will be.


class Word:
    """A ring's cursor that tells when it is moved, whoever moves it."""

    def __init__(self, word: memoryview, moving: Moving) -> None:
        self._word, self._moving = word, moving

    def __getitem__(self, place: int) -> int:
        return int(self._word[place])

    def __setitem__(self, place: int, value: int) -> None:
        self._moving(self._word[place], value)
        self._word[place] = value

    def release(self) -> None:
        """As of a view."""
        self._word.release()


def _in_rings(killer: Killer) -> None:
    """Between the bytes and the cursor, in the process that owns the cursor."""

    def passing(point: str) -> Moving:
        return lambda *_: killer.passing(point)

    def watch(side: Side, *_: Any) -> None:
        written: dict[str, Moving] = {
            "ring to the supervisor": partial(_records_published, killer, side),
            "result ring": passing("inference: slots copied, ring's head not moved"),
        }
        read: dict[str, Moving] = {
            "ring from the supervisor": passing("agent: events taken, ring's tail not moved"),
            "result ring": passing("supervisor: reports copied, ring's tail not moved"),
        }
        moving = (written if isinstance(side, Producer) else read).get(side.label)
        if moving is not None:
            cursor: Any = side.own
            cursor.word = Word(cursor.word, moving)

    _wrap(Side, "__init__", after=watch)


def _records_published(killer: Killer, side: Side, at: int, head: int) -> None:
    killer.passing("agent: records copied, ring's head not moved")
    killer.ended = False
    while at < head:
        place = at & (side.capacity - 1)
        size, kind = PREFIX.unpack_from(side.data, place)
        killer.ended = killer.ended or kind == Kind.END
        at += aligned(size)


def _in_inference(killer: Killer) -> None:
    """In the inference process, which alone loads what it runs on."""
    from lockstep.workers.inference import copies, decoder, growing, kv, process

    def at(point: str) -> Callable[..., None]:
        return lambda *_: killer.passing(f"inference: {point}")

    chunk = "before a chunk of prefill", "after a chunk of prefill"
    _wrap(process.Server, "serve", before=at("models loaded"))
    _wrap(process.Server, "_drain", after=at("tickets taken"))
    _wrap(process.Server, "_execute", before=at("before a step"))
    for kind in (decoder.Decoder, growing.GrowingDecoder):
        _wrap(kind, "_prefill", at(chunk[0]), at(chunk[1]))
        _wrap(kind, "_decode", after=at("after the run of a decode"))
    _wrap_waits(at("idle, before it waits for its bell"))
    end = engine_links.EngineEnd
    _wrap(end, "report", at("step done, results not pushed"), at("step reported"))
    _in_copies(killer, kv.KvSlab, copies.Copies, decoder.Decoder)
    writer: Any = RingWriter
    _wrap(writer, "push_many", after=at("answers pushed, slots not"))
    changed: Any = slots.SlotWriter
    push = changed.push

    def push_in_two(ring: slots.SlotWriter, array: Any) -> int:
        half = len(array) // 2
        taken = int(push(ring, array[:half])) if half else 0
        if taken < half:
            return taken
        if half:
            killer.passing("inference: half of the slots pushed")
        return taken + int(push(ring, array[half:]))

    changed.push = push_in_two


def _in_copies(killer: Killer, slab: Any, copies: Any, decoder: Any) -> None:
    """A copy is done in two, as one is that is cut off."""
    copy, run = slab.copy, copies.run
    copied: list[Any] = []  # In the step that runs.

    def copy_in_two(self: Any, source: int, slot: int, start: int, count: int) -> None:
        half = count // 2
        if half:
            copy(self, source, slot, start, half)
        rests = " to a row that rests" if slot >= self.rows else ""
        killer.passing(f"inference: in the middle of a copy{rests}")
        copy(self, source, slot, start + half, count - half)
        killer.passing("inference: a copy done, its count not written")

    def run_and_pass(self: Any, step: int | None, plan: Any) -> None:
        run(self, step, plan)
        copied[:] = plan
        if plan:
            killer.passing("inference: copies done and counted")

    def pass_chunk(*_: Any) -> None:
        if copied:
            killer.passing("inference: after a chunk behind copies")

    slab.copy, copies.run = copy_in_two, run_and_pass
    _wrap(decoder, "_prefill", after=pass_chunk)


def _in_supervisor(killer: Killer) -> None:
    def at(point: str) -> Callable[..., None]:
        return lambda *_: killer.passing(f"supervisor: {point}")

    _wrap(seat.Seat, "receive", after=at("turns taken"))
    _wrap(engine_links.EngineLink, "drain", after=at("step reports taken"))
    _wrap(links.AgentLink, "send", after=at("an agent was woken"))
    _wrap(engine_links.EngineLink, "flush", after=at("tickets sent"))
    _wrap(supervisor.Supervisor, "_close", before=at("run over, nobody told"))
    _wrap(
        ledger.Ledger,
        "close",
        at("everybody ended, journal open"),
        at("journal closed, no summary"),
    )

    def written(_folder: Any, name: str, *_: Any) -> None:
        if name == "summary.json":
            killer.passing("supervisor: summary written")

    _wrap(folder.RunFolder, "write_json", after=written)


def _in_resumption(killer: Killer) -> None:
    """Before a run goes on: these count although nobody of its crew has started."""
    held, replayed, cut, told = RESUMING_POINTS

    def at(point: str) -> Callable[..., None]:
        return lambda *_: killer.passing(point)

    _wrap(folder.RunFolder, "reopen", after=at(held))
    _wrap(ledger.Ledger, "resume", before=at(replayed))
    _wrap(storage.Disk, "truncate", after=at(cut))
    _wrap(resumption.Resumed, "open", after=at(told))


def _in_tools(killer: Killer) -> None:
    def at(point: str) -> Callable[..., None]:
        return lambda *_: killer.passing(f"tools: {point}")

    shop = tool_process.Shop
    _wrap(shop, "_start", at("call taken, command not started"))
    _wrap(tool_call.ToolCall, "__init__", after=at("command started"))
    _wrap(shop, "_say", at("command ended, answer not sent"), at("answer sent"))


def _in_files(killer: Killer) -> None:
    """Writes and syncs by what they go to, whoever does them."""
    write = storage.Disk.write

    def write_by_name(disk: Any, handle: int, data: Any, offset: int) -> int:
        file = _file_of(handle)
        if not file or killer.process != SUPERVISOR:
            return write(disk, handle, data, offset)
        killer.passing(f"supervisor: before {file} write")
        point, done = f"supervisor: half of {file} write done", 0
        if killer.expects(point) or killer.plan.census:
            done = write(disk, handle, data[: len(data) // 2], offset)
            killer.passing(point)
        done += write(disk, handle, data[done:], offset + done)
        killer.passing(f"supervisor: after {file} write, before what it allows")
        return done

    changed: Any = storage.Disk
    changed.write = write_by_name
    idle, before, after = (_in_sync(killer, point) for point in SYNC_POINTS)
    _wrap(socket, "recv_fds", idle)
    _wrap(os, "fsync", before, after)
    _wrap(os, "fdatasync", before, after)


def _in_sync(killer: Killer, point: str) -> Callable[..., None]:
    def pass_by(*_: Any) -> None:
        if killer.process == SYNC:
            killer.passing(point)

    return pass_by


def _file_of(descriptor: int) -> str:
    """What is written, as the points' names have it; empty: nothing of interest."""
    path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    if path.endswith("/output.jsonl"):
        return "an output"
    return "a journal" if "/journal/" in path else ""
