"""The first run of a session: what comes out is what the ports of the graph promise.

A graph can lie: its ports are what somebody wrote down, and ONNX Runtime believes them. Two tokens
without a past, in memory of their own, show it before any request is taken and before anything is
written into keys and values that are kept. On the fixed slab they run as the decoder will run
them: in buffers that are wider than what is in them, the sum of the mask in its first column.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.config import SLAB, ModelFacts
from lockstep.workers.inference.kv_names import at

TOKENS = 2
ERROR_CHARS_MAX = 600


def probe(
    session: Any, folder: Path, facts: ModelFacts, last_only: bool, options: Any = None
) -> None:
    """Run a session once and compare the shapes and types of everything that it makes.

    Args:
        session: Of ONNX Runtime.
        folder: For messages.
        facts: What the graph's ports promise.
        last_only: Logits are of the last position alone.
        options: Of the run.

    Raises:
        ModelRejected: it cannot run, or an output has another shape or type; it is named.
    """
    layers = range(facts.layers)
    present = [at(form, n) for n in layers for form in (facts.present_key, facts.present_value)]
    kept = 1 if last_only else TOKENS
    kv = (1, facts.kv_heads, max(TOKENS, _room(facts)), facts.head_dim)
    promised = {facts.logits: (1, kept, facts.vocab), **dict.fromkeys(present, kv)}
    try:
        made = session.run(list(promised), _feeds(facts), options)
    except Exception as error:  # Its exceptions have no common base below Exception.
        raise ModelRejected(
            f"{folder / facts.filename}: onnxruntime cannot run it: {error!s:.{ERROR_CHARS_MAX}}"
        ) from None
    for (name, shape), value in zip(promised.items(), made, strict=True):
        dtype = value.dtype.name if name == facts.logits else facts.dtype
        if value.shape != shape or value.dtype.name != dtype:
            raise ModelRejected(
                f"{folder / facts.filename}: {name} is {value.dtype.name}{list(value.shape)} for "
                f"{TOKENS} tokens, expected {dtype}{list(shape)}"
            )


def _feeds(facts: ModelFacts) -> dict[str, Any]:
    room = _room(facts)
    feeds: dict[str, Any] = {facts.input_ids: np.zeros((1, TOKENS), np.int64)}
    if facts.attention_mask:
        feeds[facts.attention_mask] = mask = np.ones((1, max(TOKENS, room)), np.int64)
        if room:
            mask[0] = [TOKENS] + [0] * (room - 1)
    if facts.position_ids:
        feeds[facts.position_ids] = np.arange(TOKENS, dtype=np.int64).reshape(1, TOKENS)
    if facts.logits_to_keep:
        feeds[facts.logits_to_keep] = np.ones([1] * facts.keep_rank, np.int64)
    empty = np.zeros((1, facts.kv_heads, room, facts.head_dim), facts.dtype)
    for layer in range(facts.layers):
        feeds[at(facts.past_key, layer)] = feeds[at(facts.past_value, layer)] = empty
    return feeds


def _room(facts: ModelFacts) -> int:
    """Tokens that the past has room for; without a slab it has none beyond what is in it."""
    return max(2 * TOKENS, facts.tokens_min) if facts.path == SLAB else 0
