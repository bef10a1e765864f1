"""Graphs that grow their keys and values: a correct path of their own, and what it costs.

Graphs of plain operators make ``present`` as a new tensor, past and new tokens joined, so nothing
can be written in place. Rows run one after another, each alone, with a true mask and keys of its
own length: a row's bits cannot depend on a neighbour. The slab has the same layout as for other
models, and what lies in it is the truth: a restart, a copied prefix and a row that comes back need
nothing of this module.

What a run needs as past is one piece per tensor, and a slot of the slab is not: its heads lie
``tokens_max`` apart. So a row's keys and values are copied out of the slab before its run, and the
new tokens' back into it afterwards. Keeping what a run made for the next run of that row, instead
of copying it again, was built and measured: it gained nothing (docs/models.md), because the graph
itself copies everything several times, and it needed a proof that the slab was not written to in
between. It is not done.

The price, beside the fixed slab: weights are read once per row instead of once per step, and all
keys and values of a row are copied in each step. Memory: two slots more, for all rows together.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from lockstep.engine.plan import Chunk, ModelPlan
from lockstep.workers.inference.config import GROWING, ModelFacts
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.exact import Floats32
from lockstep.workers.inference.kv_names import at
from lockstep.workers.inference.shortlist import Row


class GrowingDecoder(Decoder):
    """A `Decoder` for graphs whose present is another tensor than their past."""

    def __init__(self, *args: Any, **more: Any) -> None:
        """As `Decoder`; the slab lies on the CPU whatever the device."""
        super().__init__(*args, **more)
        facts = self.facts
        # [layers, 2, numbers of a slot]: one row's keys and values, each in one piece.
        shape = (facts.layers, 2, facts.kv_heads * self.tokens_max * facts.head_dim)
        self._past = np.zeros(shape, self.slab.dtype)
        self._present = np.zeros(shape, self.slab.dtype)
        self._io = self.session.io_binding()
        self._feeds.mask.array[:] = 1
        self._feeds.mask.publish()
        self._places = np.arange(self.tokens_max, dtype=np.int64).reshape(-1, 1)
        note = f"{facts.filename}: {facts.path_why}; each row runs alone, which costs throughput"
        self.report = replace(self.report, notes=(*self.report.notes, note))

    def close(self) -> None:
        """As `Decoder.close`."""
        self._io = None
        super().close()

    def _slab_device(self, devices: dict[str, str]) -> str:
        return "cpu"

    def _prefill(self, chunk: Chunk, short: bool) -> Row:
        logits: Floats32 = self._grow(chunk.slot, chunk.start, chunk.tokens).astype(np.float32)
        return logits

    def _decode(self, plan: ModelPlan, short: Collection[int]) -> dict[int, Row]:
        return {
            row.slot: self._grow(row.slot, row.past, (row.token,)).astype(np.float32)
            for row in plan.decodes
        }

    def _grow(self, slot: int, past: int, tokens: tuple[int, ...]) -> Any:
        """Feed ``tokens`` behind the first ``past`` of a slot. Logits of the last, a view."""
        assert self.slab.array is not None  # It lies on the CPU.
        count = len(tokens)
        kept = self.slab.array[:, :, slot]
        self._tensor(self._past, past)[...] = kept[..., :past, :]
        self._bind_feeds(past, count, tokens)
        self._bind_kv(past, count)
        self.session.run_with_iobinding(self._io, self._options)
        made = self._tensor(self._present, past + count)
        kept[..., past : past + count, :] = made[..., past:, :]
        return self._last_logits(self._logits, count)

    def _bind_feeds(self, past: int, count: int, tokens: tuple[int, ...]) -> None:
        facts, io, feeds = self.facts, self._io, self._feeds
        feeds.ids.array[:count, 0] = tokens
        feeds.positions.array[:count] = self._places[past : past + count]
        feeds.ids.publish()
        feeds.positions.publish()
        feeds.bind(io, 1, count)
        feeds.bind_mask(io, 1, past + count)
        feeds.bind_keep(io)
        made = 1 if self.last_only else count
        if made * facts.vocab > self._logits.size:
            self._logits = np.zeros(made * facts.vocab, self._logits_dtype)
        kind, address = self._logits_dtype.type, self._logits.ctypes.data
        io.bind_output(facts.logits, "cpu", 0, kind, [1, made, facts.vocab], address)

    def _bind_kv(self, past: int, count: int) -> None:
        facts, io, kind = self.facts, self._io, self.slab.dtype.type
        before = [1, facts.kv_heads, past, facts.head_dim]
        after = [1, facts.kv_heads, past + count, facts.head_dim]
        size = self._past[0, 0].nbytes
        names = ((facts.past_key, facts.present_key), (facts.past_value, facts.present_value))
        for layer in range(facts.layers):
            for part, (given, made) in enumerate(names):
                offset = (layer * 2 + part) * size
                address = self._past.ctypes.data + offset
                io.bind_input(at(given, layer), "cpu", 0, kind, before, address)
                address = self._present.ctypes.data + offset
                io.bind_output(at(made, layer), "cpu", 0, kind, after, address)

    def _tensor(self, buffer: np.ndarray[Any, Any], tokens: int) -> Any:
        """[layers, 2, kv_heads, tokens, head_dim] of a buffer, a view."""
        heads, dim = self.facts.kv_heads, self.facts.head_dim
        used = buffer[:, :, : heads * tokens * dim]
        return used.reshape(*buffer.shape[:2], heads, tokens, dim)


def decoder_class(facts: ModelFacts) -> type[Decoder]:
    """What executes a model's plans."""
    return GrowingDecoder if facts.path == GROWING else Decoder
