"""The slots of a step as they are recorded: one row of RESULT_SLOT for each thing that was done.

engine/wire.py draws them. Their order is part of the record, which is read backwards, too
(engine/restore.py): conversations leave before anything is copied, and a row is admitted to the
slot that it has after the copies.
"""

from collections.abc import Iterable, Mapping

from lockstep.engine.plan import ALL_SHARED, Booked, ModelPlan, Outcome, Place
from lockstep.engine.wire import FromEngine

Row = tuple[int, int, int, int, int, int]


def planned(part: ModelPlan) -> list[Row]:
    """What is decided before a model runs: evictions, copies, admissions, chunks."""
    m = part.model
    rows: list[Row] = [(FromEngine.EVICT, m, slot, 0, 0, 0) for slot in part.evicted]
    for c in part.copies:
        op = FromEngine.MOVE if c.move else FromEngine.COPY
        rows.append((op, m, c.slot, c.source, c.start, c.count))
    for a in part.admitted:
        rows.append((FromEngine.ADMIT, m, a.slot, a.ticket, a.hit, a.sample))
        if a.shared != ALL_SHARED:
            rows.append((FromEngine.SHARE, m, a.slot, a.ticket, a.shared, 0))
    for chunk in part.chunks:
        size = len(chunk.tokens)
        if not size:
            continue  # A call: that it was admitted says everything.
        rows.append((FromEngine.CHUNK, m, chunk.slot, chunk.ticket, chunk.start, size))
    return rows


def drawn(part: ModelPlan, outcomes: Mapping[Place, Outcome]) -> list[Row]:
    """Tokens that a model's rows got, in the order of the plan; none where it was not finite."""
    where = {
        c.slot: (c.ticket, c.start + len(c.tokens)) for c in part.chunks if c.last and c.tokens
    }
    where |= {d.slot: (d.ticket, d.past + 1) for d in part.decodes}
    rows: list[Row] = []
    for slot, (ticket, position) in where.items():
        token = outcomes[part.model, slot].token
        if token is not None:
            rows.append((FromEngine.TOKEN, part.model, slot, ticket, token, position))
    return rows


def left(booked: Booked) -> Iterable[Row]:
    """Rows that ended before their ticket."""
    return [(FromEngine.LEAVE, m, slot, ticket, 0, 0) for m, slot, ticket in booked.left]
