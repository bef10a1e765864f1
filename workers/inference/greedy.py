"""Greedy generation by hand-made plans: what `check` and tests drive a decoder with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lockstep.engine.plan import Chunk, Decode, ModelPlan
from lockstep.workers.inference.decoder import Decoder

JOIN_STEPS = 2  # Steps between one row's joining and the next one's.


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Tokens of one prompt and the logits they were chosen from, (tokens, vocab) float32."""

    tokens: tuple[int, ...]
    logits: np.ndarray[Any, np.dtype[np.float32]]

    def same(self, other: "Row") -> bool:
        """Equal in tokens and in every bit of the logits."""
        equal = self.logits.tobytes() == other.logits.tobytes()
        return equal and self.tokens == other.tokens


def generate(
    decoder: Decoder,
    prompts: Sequence[tuple[int, ...]],
    count: int,
    slot: int | None = None,
    *,
    join_steps: int = JOIN_STEPS,
) -> list[Row]:
    """``count`` tokens for each prompt; the ends of sequences do not stop it.

    Rows join one after another, every ``join_steps`` steps, in the lowest free slot, so each of
    them decodes in batches of changing size and place.

    Args:
        decoder: Its slots are overwritten.
        prompts: Token ids.
        count: Tokens to generate for each.
        slot: Use this one only; there must be one prompt.
        join_steps: From 1.
    """
    waiting = list(range(len(prompts)))
    held: dict[int, int] = {}  # Slot to prompt.
    tokens: list[list[int]] = [[] for _ in prompts]
    logits: list[list[Any]] = [[] for _ in prompts]
    step = 0
    while waiting or held:
        lengths = [0] * decoder.rows_max
        decodes = []
        for at, index in sorted(held.items()):
            lengths[at] = len(prompts[index]) + len(tokens[index]) - 1
            decodes.append(Decode(index, at, lengths[at], tokens[index][-1]))
        free = [at for at in range(decoder.rows_max) if at not in held]
        chunks = []
        if waiting and free and step % join_steps == 0:
            index = waiting.pop(0)
            at = free[0] if slot is None else slot
            chunks.append(Chunk(index, at, 0, prompts[index], True))
            lengths[at] = len(prompts[index])
            held[at] = index
        plan = ModelPlan(0, chunks=tuple(chunks), decodes=tuple(decodes), lengths=tuple(lengths))
        for at, row in decoder.run(plan):
            index = held[at]
            logits[index].append(row.copy())
            tokens[index].append(int(np.argmax(row)))
        held = {at: index for at, index in held.items() if len(tokens[index]) < count}
        step += 1
    return [Row(tuple(t), np.stack(rows)) for t, rows in zip(tokens, logits, strict=True)]
