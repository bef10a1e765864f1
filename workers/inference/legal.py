"""Legal plans: what a planner may never make is refused before anything of it is run."""

from lockstep.engine.errors import LockstepBug
from lockstep.engine.plan import Chunk, Copy, Decode, ModelPlan


def check_plan(plan: ModelPlan, rows: int, slots: int, full: int, vocab: int) -> None:
    """Refuse what would write outside a slot or read a token that is not there.

    Args:
        plan: Of one model.
        rows: Slots that compute.
        slots: All of them.
        full: Tokens of a slot.
        vocab: Token ids.

    Raises:
        LockstepBug: where, and what would be legal.
    """
    lengths = plan.lengths
    fits = not lengths or 0 <= min(lengths) <= max(lengths) <= full
    if len(lengths) > slots or not fits:
        raise LockstepBug(f"plan: lengths {lengths}, expected 0 to {full} for each row")
    for copy in plan.copies:
        _check_copy(copy, slots, full)
    for chunk in plan.chunks:
        _check_chunk(chunk, rows, full, vocab)
    previous, lengths = -1, lengths[:rows]
    for row in plan.decodes:
        _check_decode(row, previous, lengths, full, vocab)
        previous = row.slot


def _check_chunk(chunk: Chunk, rows: int, full: int, vocab: int) -> None:
    room = full - chunk.start
    if not (0 <= chunk.slot < rows and 0 < len(chunk.tokens) <= room <= full):
        raise LockstepBug(f"plan: chunk {chunk}, slots of {full} tokens")
    if not 0 <= min(chunk.tokens) <= max(chunk.tokens) < vocab:
        raise LockstepBug(f"plan: chunk {chunk}, token ids are 0 to {vocab - 1}")
    if chunk.start and len(chunk.tokens) == 1:
        raise LockstepBug(f"plan: chunk {chunk} is a later chunk of 1 token (rule 1)")


def _check_copy(copy: Copy, slots: int, full: int) -> None:
    known = 0 <= copy.source < slots and 0 <= copy.slot < slots and copy.source != copy.slot
    least = 0 if copy.move else 1  # A conversation may move of which nothing is needed.
    if not known or copy.count < least or not 0 <= copy.start <= full - copy.count:
        raise LockstepBug(f"plan: {copy}, {slots} slots of {full} tokens")


def _check_decode(
    row: Decode, previous: int, lengths: tuple[int, ...], full: int, vocab: int
) -> None:
    known = previous < row.slot < len(lengths)
    if not known or row.past != lengths[row.slot] or row.past >= full or not 0 <= row.token < vocab:
        raise LockstepBug(f"plan: {row} after slot {previous}, lengths {lengths}, room {full}")
