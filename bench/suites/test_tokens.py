"""From logits to a token, and from tokens to text."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.engine import keyed
from lockstep.workers.inference.detokenizer import Detokenizer
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.sampler import draw, likeliest
from lockstep.workers.inference.sampling import Sampling
from lockstep.workers.inference.text import Text

VOCAB = 49_152
LOGITS = (np.random.default_rng(1).normal(size=VOCAB) * 3).astype(np.float32)
WAYS = {
    "temperature": Sampling(temperature=1.0),
    "top_k": Sampling(temperature=1.0, top_k=50),
    "top_p": Sampling(temperature=1.0, top_p=0.9),
    "min_p": Sampling(temperature=1.0, min_p=0.05),
}
MODEL = Path(__file__).parents[2] / "examples" / "vote" / "model"
TOKENS = 100


def test_a_greedy_token_is_taken(benchmark: Any) -> None:
    assert benchmark(likeliest, LOGITS) == int(LOGITS.argmax())


@pytest.mark.parametrize("way", WAYS)
def test_a_token_is_drawn(benchmark: Any, way: str) -> None:
    uniforms = partial(keyed.uniform, keyed.key(0, "bench", way))
    assert 0 <= benchmark(draw, LOGITS, WAYS[way], uniforms) < VOCAB


def test_an_answer_becomes_text_token_by_token(benchmark: Any) -> None:
    folder = ModelFolder.open(MODEL)
    text = Text(folder)
    folder.close()
    tokens = (text.encode("the quick brown fox ") * TOKENS)[:TOKENS]

    def said() -> str:
        one = Detokenizer(text)
        return "".join([*map(one.push, tokens), one.finish()])

    assert benchmark(said) == text.decode(tokens)
