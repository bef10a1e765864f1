"""Prefixes: what a prompt has in common with what slots hold, and who is worth waiting for. Pure.

A prefix is computed once: a row copies it from a slot that has it, and waits for an earlier row
that is about to. Only what prefill computed is copied, by rows all of whose tokens prefill
computed: a generated token was computed by another kernel, with other bits, and who copied it
would say something else than alone. So copies show in the time that a prompt takes, and in nothing
else.
"""

from collections.abc import Sequence

from lockstep.engine.slots import SPARED_TOKENS, TOKEN_BYTES, Row, Slots

COPY_TOKENS_MIN = 8  # Fewer are computed: cheaper than a copy, its place in the record, a wait.


def copy_prefixes(slots: Slots, rows: Sequence[Row]) -> list[Row]:
    """Copy to rows whose prompt is not whole what other slots have of it.

    A row waits only for rows that came before it, and the first of those that compute never
    does: each of them gets on in its turn, whatever comes behind.

    Args:
        slots: Of the model.
        rows: All of them, in order of admission.

    Returns:
        Those that get no chunk in this step: an earlier row is computing what they lack.
    """
    waiting = []
    for place, row in enumerate(rows):
        if row.is_whole() or slots[row.slot].shared < row.filled:
            continue  # Behind generated tokens of its own conversation, alone or not.
        source, there = _best_source(slots, row)
        if _promised(slots, row, rows[:place]) - max(there, row.filled) >= COPY_TOKENS_MIN:
            waiting.append(row)
        elif there - row.filled >= COPY_TOKENS_MIN:
            slots.copy_prefix(source, row, there)
    return waiting


def _best_source(slots: Slots, row: Row) -> tuple[int, int]:
    """The slot that has most of the row's prompt, the lowest among equals, and how much."""
    source, most = row.slot, 0
    for number, slot in enumerate(slots.all):
        if slot.shared > most and number != row.slot:
            there = min(_common(row, slot.lead), slot.shared)
            if there > most:
                source, most = number, there
    return source, most


def _promised(slots: Slots, row: Row, earlier: Sequence[Row]) -> int:
    """How much of the row's prompt earlier rows, that are computing theirs, will have."""
    most = 0
    for other in earlier:
        slot = slots[other.slot]
        if not other.is_whole() and slot.shared == other.filled:
            most = max(most, _common(row, slot.lead))
    return most


def _common(row: Row, lead: bytes) -> int:
    """Tokens at the beginning of both, without the last ones of the prompt."""
    known = row.compared.get(lead)
    if known is None:
        most = max(0, len(row.request.prompt) - SPARED_TOKENS)
        known = row.compared[lead] = min(common_tokens(row.packed, lead), most)
    return known


def common_tokens(one: bytes, other: bytes) -> int:
    """Tokens at the beginning of both, packed (`pack`): by halves, at the speed of memcmp."""
    low, high = 0, min(len(one), len(other)) // TOKEN_BYTES
    while low < high:
        middle = (low + high + 1) // 2
        start, stop = low * TOKEN_BYTES, middle * TOKEN_BYTES
        if one[start:stop] == other[start:stop]:
            low = middle
        else:
            high = middle - 1
    return low
