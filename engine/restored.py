"""Restored: what the inference process had when it was lost, as engine/restore.py reads it.

Handed to a new process of it, whose planner becomes the lost one's by it (`Planner.restore`).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from lockstep.engine.plan import Copy, Decode

UNKNOWN = -1  # A due step that nobody has chosen yet (arrival order).
ACTIVE = -1  # In place of the step in which a request ended.


class Asked(NamedTuple):
    """A request that is unanswered, or of which a slot still holds something.

    Attributes:
        ticket: Its number.
        agent: Whose it is.
        due: Step at which it joins its queue, or `UNKNOWN`.
        ordinal: Which request of the agent it is.
        record: INFER as the guest wrote it.
        least: Step of the tag that gave the ticket: it cannot be due earlier.
    """

    ticket: int
    agent: int
    due: int
    ordinal: int
    record: bytes
    least: int = 0


class PastCancel(NamedTuple):
    """A cancel that no step has taken yet; fields as in `Asked`."""

    ticket: int
    due: int
    least: int = 0


class Kept(NamedTuple):
    """What a slot holds, by the last row that was in it.

    Attributes:
        model, slot: Which slot.
        ticket: The request.
        hit: Prompt tokens that it found there.
        filled: Prompt tokens that are there.
        tokens: What it was answered so far; all but the last were fed, behind the prompt.
        ended: Step in which it ended, or `ACTIVE`.
        sample: Which answer of the request.
        shared: Tokens that others may copy, if anyone may.
        computed: Prompt tokens that it computed itself.
    """

    model: int
    slot: int
    ticket: int
    hit: int
    filled: int
    tokens: tuple[int, ...]
    ended: int
    sample: int = 0
    shared: int = 0
    computed: int = 0


class Queued(NamedTuple):
    """An unanswered request that has joined its queue; so many samples of it got a slot."""

    ticket: int
    admitted: int


class PastChunk(NamedTuple):
    """A recorded chunk: ``size`` prompt tokens of a row from ``start`` on."""

    ticket: int
    slot: int
    start: int
    size: int
    sample: int = 0


class Said(NamedTuple):
    """A recorded token of a row, its ``place``-th."""

    ticket: int
    sample: int
    place: int
    token: int


class Score(NamedTuple):
    """A recorded log-probability: of a token that might be, or is, the ``place``-th of a row."""

    ticket: int
    sample: int
    place: int
    token: int
    steps: int


@dataclass(frozen=True, slots=True)
class Again:
    """What a model has to run again of one recorded step.

    Attributes:
        step: Which one.
        model: Index of the model.
        copies: Those that wrote something still held, done before the chunks.
        chunks: Likewise.
        decodes: All rows of the run, if one of them did; else none.
        lengths: As in `ModelPlan`.
        said: By slot, the recorded token of each row that is among what is still held.
    """

    step: int
    model: int
    chunks: tuple[PastChunk, ...]
    decodes: tuple[Decode, ...]
    lengths: tuple[int, ...]
    said: dict[int, Said]
    copies: tuple[Copy, ...] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """State of the planner behind the last recorded step.

    Attributes:
        last_step: That step, -1 without any.
        asked: Every request that is named below, by ticket.
        kept: Slots that hold something, in the order of their last admissions.
        left: Rows of unanswered tickets that ended and that no slot holds any more.
        queued: Unanswered tickets that have joined their queue, active ones included.
        offered: Tickets that join theirs later.
        cancels: That were not taken yet.
        again: What makes the slots' content again, in order; empty if that is not lost.
        scores: Log-probabilities of unanswered tickets, as recorded.
    """

    last_step: int
    asked: tuple[Asked, ...]
    kept: tuple[Kept, ...]
    queued: tuple[Queued, ...]
    offered: tuple[int, ...]
    cancels: tuple[PastCancel, ...]
    again: tuple[Again, ...] = field(default=(), repr=False)
    scores: tuple[Score, ...] = field(default=(), repr=False)
    left: tuple[Kept, ...] = ()
