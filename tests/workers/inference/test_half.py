"""Models that compute in float16, as those for GPUs do, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lockstep.bench import models
from lockstep.workers.inference.greedy import generate
from lockstep.workers.inference.selftest import prompts_of, trial

PROMPTS = prompts_of(models.VOCAB, (1, 5, 17, 40))


def test_logits_are_those_of_float32_but_for_what_float16_rounds(
    half: Path, single: Path, decoder: Any
) -> None:
    made, other = decoder(half), decoder(single)
    assert made.slab.dtype == np.float16 and made.facts.dtype == "float16"
    # With four bits, activations are rounded to eight on the way (accuracy_level 4).
    error = 0.1 if half.name.endswith("-4") else 0.02
    rows, wanted = (generate(each, PROMPTS, 1) for each in (made, other))
    for row, right in zip(rows, wanted, strict=True):
        assert row.logits.dtype == np.float32 and right.logits.std() > 0.3
        np.testing.assert_allclose(row.logits, right.logits, rtol=0, atol=error)


def test_two_sessions_give_the_same_bits(half: Path, decoder: Any) -> None:
    tried = trial(lambda: decoder(half), PROMPTS, 8, join_steps=1)
    assert tried.run
