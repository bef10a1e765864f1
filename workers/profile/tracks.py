"""Tracks, read: what the processes of a run wrote, each as far as it came.

A track ends with its last whole record. What comes behind that, or makes no sense, is not read: a
process that was killed in a record, and bytes that somebody changed, look the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lockstep.engine.errors import UsageError
from lockstep.workers.folder import PROFILE
from lockstep.workers.profile.spans import (
    HEADER,
    HEADER_BYTES,
    MAGIC,
    RECORD_BYTES,
    SUFFIX,
    Kind,
    Role,
    State,
)

RECORDS = np.dtype(
    [("start", "<u8"), ("end", "<u8"), ("a", "<u8"), ("b", "<u8"), ("c", "<u4"), ("kind", "<u4")]
)
KINDS = np.array(list(Kind), np.uint32)
BLOCK = 1 << 15  # Records in memory at a time, as Python objects.
WORD_MAX = 1 << 62  # Moments, lengths and counts: sums of two are numbers with a sign.
C_MAX = {Kind.WAIT: 1, Kind.DECODE: 1024, Kind.WEIGHTS: 1024}  # A switch, rows, threads.
STOPS = {State.LIMIT: "its limit", State.NO_ROOM: "no room on the disk"}

Records = npt.NDArray[np.void]


@dataclass(slots=True)
class Track:
    """Of one process.

    Attributes:
        role: What the process was.
        index: Of the agent; else 0.
        pid: Of the process.
        name: For people.
        began_ns: When it began, of CLOCK_MONOTONIC.
        ended_ns: When it ended, or as far as is known of it.
        stopped: Why it was recorded no further; empty: it was.
        records: Of `RECORDS`, in the order in which they were written.
    """

    role: Role
    index: int
    pid: int
    name: str
    began_ns: int
    ended_ns: int
    stopped: str
    records: Records

    def of(self, *kinds: Kind) -> Records:
        """Records of these kinds."""
        return self.records[np.isin(self.records["kind"], kinds)]

    @property
    def life_ns(self) -> int:
        """From its beginning to its end."""
        return self.ended_ns - self.began_ns


@dataclass(slots=True)
class Tracks:
    """Of one run.

    Attributes:
        all: By role, agent and time; the supervisor's first.
        unread: Names of files that are no tracks.
    """

    all: list[Track]
    unread: list[str]

    @property
    def supervisor(self) -> Track:
        """The supervisor's."""
        return self.all[0]

    @property
    def zero_ns(self) -> int:
        """The run's first tag."""
        passes = self.supervisor.of(Kind.PASS)
        return int(passes["start"][0]) if len(passes) else self.supervisor.ended_ns

    @property
    def end_ns(self) -> int:
        """The end of the run, before its processes are ended."""
        close = self.supervisor.of(Kind.CLOSE)
        if len(close):
            return int(close["start"][0])
        return max(track.ended_ns for track in self.all)

    def of_role(self, role: Role) -> list[Track]:
        """Those of one role."""
        return [track for track in self.all if track.role == role]

    def joined(self, role: Role, *kinds: Kind) -> Records:
        """Records of these kinds of all processes of a role, by the time of their end."""
        parts = [track.of(*kinds) for track in self.of_role(role)]
        joined = np.concatenate(parts) if parts else np.empty(0, RECORDS)
        return joined[np.argsort(joined["end"], kind="stable")]


def read(run: Path) -> Tracks:
    """The tracks in a run folder.

    Raises:
        UsageError: there are none, or not the supervisor's.
    """
    folder = run / PROFILE
    if not folder.is_dir():
        raise UsageError(f"{run}: it was not profiled: `lockstep profile FLEET` makes a new run")
    found, unread = [], []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        track = _track(path)
        if track is None:
            unread.append(path.name)
        else:
            found.append(track)
    found.sort(key=lambda track: (track.role, track.index, track.began_ns))
    if not found or found[0].role != Role.SUPERVISOR:
        raise UsageError(f"{folder}: the supervisor left no track, so nothing is known of the run")
    tracks = Tracks(found, unread)
    _end(tracks)
    return tracks


def _track(path: Path) -> Track | None:
    """One file; None: it is no track, or its process died before there was one."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size or size < HEADER_BYTES:
        return None
    magic, role, index, pid, began, stopped, state, width, name = HEADER.unpack(head)
    known = magic == MAGIC and width == RECORD_BYTES
    if not known or role not in tuple(Role) or state not in tuple(State):
        return None
    count = (size - HEADER_BYTES) // RECORD_BYTES
    records: Any = np.empty(0, RECORDS)
    if count:
        whole = np.memmap(path, RECORDS, "r", HEADER_BYTES, (count,))
        records = whole[: _good(whole)]
    last = _last(records) if len(records) else began
    label = name.rstrip(b"\0").decode("utf-8", "replace")
    why = STOPS.get(State(state), "")
    ended = max(stopped, last)
    return Track(Role(role), index, pid, label, began, ended, why, records)


def _last(records: Records) -> int:
    """The last moment that is known of a process. A turn is over when its records were sent."""
    turns = records["kind"] == Kind.TURN
    return int((records["end"] + np.where(turns, records["b"], np.uint64(0))).max())


def _good(records: Records) -> int:
    """How many records there are before the first that is none."""
    good = np.isin(records["kind"], KINDS) & (records["start"] <= records["end"])
    for field in ("end", "a", "b"):
        good &= records[field] < WORD_MAX
    for kind, most in C_MAX.items():
        good &= (records["kind"] != kind) | (records["c"] <= most)
    return int(np.argmin(good)) if not good.all() else len(good)


def _end(tracks: Tracks) -> None:
    """Whoever still lived at the end of the run was ended then."""
    supervisor = tracks.supervisor
    close = supervisor.of(Kind.CLOSE)
    if not len(close):
        return
    moment = int(close["start"][0])
    used = supervisor.of(Kind.USED)
    living = dict.fromkeys(used["a"][used["start"] == moment].tolist())
    for track in tracks.all:
        if track.pid in living and not track.stopped and not len(track.of(Kind.LEFT)):
            track.ended_ns = max(track.ended_ns, moment)


def spans_of(records: Records) -> Iterator[tuple[int, ...]]:
    """Records as tuples (start, end, a, b, c, kind), a block of them in memory at a time."""
    for at in range(0, len(records), BLOCK):
        yield from records[at : at + BLOCK].tolist()


def ns_of(records: Records) -> npt.NDArray[np.int64]:
    """How long each took."""
    taken: npt.NDArray[np.int64] = (records["end"] - records["start"]).astype(np.int64)
    return taken


def seconds(parts: Sequence[Records]) -> float:
    """How long all of them took."""
    return sum(float(ns_of(part).sum()) for part in parts) / 1e9
