"""Step plans: what the planner decides and the inference process executes, no choice left."""

from dataclasses import dataclass, field
from typing import NamedTuple

DUE, CANCEL = 1, 2  # What `StepPlan.taken` is about.

ALL_SHARED = -1  # Others may copy every token that is there, or no one copies anything.

Place = tuple[int, int]  # (model, slot): what a row is known by within a step.


class Outcome(NamedTuple):
    """What a row got: ``token`` is None where logits were not finite; ``stop``: it ends the row."""

    token: int | None
    stop: bool = False


class Admission(NamedTuple):
    """A row of a ticket gets a slot that holds, after the copies, ``hit`` prompt tokens (rule 1).

    ``shared``: so many of them others may copy; `ALL_SHARED` where that needs no saying.
    """

    ticket: int
    slot: int
    hit: int
    sample: int = 0
    shared: int = ALL_SHARED


@dataclass(frozen=True, slots=True)
class Copy:
    """Tokens ``start .. start + count`` of one slot to the same positions of another.

    ``move``: the row or conversation itself goes there; what is left behind is nobody's.
    """

    source: int
    slot: int
    start: int
    count: int
    move: bool = False


class Chunk(NamedTuple):
    """Prefill of ``tokens`` at positions ``start ..`` of a slot; ``last`` gives the first token."""

    ticket: int
    slot: int
    start: int
    tokens: tuple[int, ...]
    last: bool
    sample: int = 0


class Decode(NamedTuple):
    """One active row: feed ``token`` at position ``past`` (= tokens already in the slot)."""

    ticket: int
    slot: int
    past: int
    token: int
    sample: int = 0


class Ended(NamedTuple):
    """A request that ended in this step; ``reason`` is a key of `FINISH_STATUS`, text the why."""

    ticket: int
    reason: str
    text: str = ""


class Left(NamedTuple):
    """A row that ended while other samples of its ticket go on or still wait."""

    model: int
    slot: int
    ticket: int


class Booked(NamedTuple):
    """What came of a step's tokens: tickets that ended, and rows that left theirs before."""

    ended: list[Ended]
    left: list[Left]


# Finish reasons and their number in the binary RESULT (docs/abi.md).
FINISH_STATUS = {
    "stop": 0,
    "length": 1,
    "refused": 2,
    "invalid_output": 3,
    "cancelled": 4,
    "timeout": 5,
}
GOOD_FINISHES = frozenset({"stop", "length"})


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model's part of a step. ``idle`` maps kept or prefilling slots to tokens they hold.

    Attributes:
        model: Index of the model in the fleet.
        evicted: Slots whose kept conversation was given up, in order.
        admitted: In queue order.
        copies: Executed one after the other, before the chunks.
        chunks: In queue order; each runs alone on a view of its slot.
        decodes: In slot order; all run in one call over the contiguous range of slots from the
            first to the last of them.
        lengths: Tokens that every slot of the model holds before this step's decode and after
            its chunks; rows of the range that are not in ``decodes`` must not lose any of them.
    """

    model: int
    evicted: tuple[int, ...] = ()
    admitted: tuple[Admission, ...] = ()
    copies: tuple[Copy, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    decodes: tuple[Decode, ...] = ()
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Everything that happens at the boundary before ``step`` and in it."""

    step: int
    ended: tuple[Ended, ...] = ()  # Refused, cancelled or timed out at the boundary.
    models: tuple[ModelPlan, ...] = field(default=())
    # (`DUE` or `CANCEL`, ticket, due step) of what was taken in at the boundary.
    taken: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """A ticket as the planner sees it.

    Attributes:
        ticket: Place in line.
        due: Step at which it joins its model's queue.
        model: Index of the model.
        conversation: Whose KV a slot keeps: (agent, conversation); a later request of the same
            conversation finds its prefix there (rule 1).
        prompt: Token ids.
        tokens_out_max: Tokens to generate at most.
        stop: Token ids that end the request.
        priority: 0 (default) to 7; later by that many ``priority_steps`` in the queue.
        timeout_steps: Ends unanswered that many steps after ``due``; 0 is never.
        refusal: Why it cannot be served; it ends at its due step.
        samples: Answers wanted, each in a row of its own.
    """

    ticket: int
    due: int
    model: int
    conversation: tuple[int, str]
    prompt: tuple[int, ...]
    tokens_out_max: int
    stop: frozenset[int] = frozenset()
    priority: int = 0
    timeout_steps: int = 0
    refusal: str = ""
    samples: int = 1
