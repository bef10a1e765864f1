"""Graphs that grow their keys and values: a correct path of their own, and what it costs.

Graphs of plain operators make ``present`` as a new tensor, past and new tokens joined, so nothing
can be written in place. Rows run one after another, each alone, with a true mask and keys of its
own length: a row's bits cannot depend on a neighbour. The slab has the same layout as for other
models, and what lies in it is the truth: a restart, a copied prefix and a row that comes back need
nothing of this module.

What a run needs as past is one piece per tensor, and a slot of the slab is not: its heads lie
``tokens_max`` apart. So each row that is decoding has two buffers beside the slab. A run reads one
and writes the other, and they change places; only new tokens are copied, out to the slab. Where a
buffer does not hold what the slab holds, it is filled from the slab first. That is found out, not
believed: a buffer goes on only if the row was in the run before, nobody was admitted to its slot
since, it has as many tokens as the plan says, and its last token is, in every layer, bit for bit
what lies in the slab. Keys of the last token in a deeper layer come of all tokens before it.

The price, beside the fixed slab: weights are read once per row instead of once per step, the graph
copies all keys and values of a row in each step, and the buffers take twice the memory of the slots
that are decoding.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lockstep.engine.plan import Chunk, ModelPlan
from lockstep.workers.inference.config import GROWING, ModelFacts
from lockstep.workers.inference.decoder import Decoder, Logits
from lockstep.workers.inference.signature import at


@dataclass(slots=True)
class _Buffers:
    """Keys and values of one row in one piece each, twice: [layers, 2, numbers of a slot].

    Attributes:
        past: What the last run made; its first ``length`` tokens are there.
        spare: Where the next run writes.
        length: Tokens in ``past``.
    """

    past: np.ndarray[Any, Any]
    spare: np.ndarray[Any, Any]
    length: int = 0


class GrowingDecoder(Decoder):
    """A `Decoder` for graphs whose present is another tensor than their past."""

    def __init__(self, *args: Any, **more: Any) -> None:
        """As `Decoder`; the slab lies on the CPU whatever the device."""
        super().__init__(*args, **more)
        self._buffers: dict[int, _Buffers] = {}
        self._pool: list[_Buffers] = []
        self._io = self.session.io_binding()
        self._mask.array[:] = 1
        self._mask.publish()
        self._ends = np.arange(self.tokens_max, dtype=np.int64).reshape(-1, 1)
        facts = self.facts
        note = f"{facts.filename}: {facts.path_why}; each row runs alone, which costs throughput"
        self.report = replace(self.report, notes=(*self.report.notes, note))

    def run(self, plan: ModelPlan) -> Any:
        """As `Decoder.run`."""
        for admission in plan.admitted:
            self._release(admission.slot)
        results = super().run(plan)
        ran = {chunk.slot for chunk in plan.chunks} | {row.slot for row in plan.decodes}
        for slot in [slot for slot in self._buffers if slot not in ran]:
            self._release(slot)
        return results

    def close(self) -> None:
        """As `Decoder.close`."""
        self._buffers.clear()
        self._pool.clear()
        self._io = None
        super().close()

    def _slab_device(self, devices: dict[str, str]) -> str:
        return "cpu"

    def _prefill(self, chunk: Chunk) -> Any:
        return self._grow(chunk.slot, chunk.start, chunk.tokens)

    def _decode(self, plan: ModelPlan) -> dict[int, Logits]:
        return {
            row.slot: self._grow(row.slot, row.past, (row.token,)).astype(np.float32)
            for row in plan.decodes
        }

    def _grow(self, slot: int, past: int, tokens: tuple[int, ...]) -> Any:
        """Feed ``tokens`` behind the first ``past`` of a slot. Logits of the last, a view."""
        count = len(tokens)
        buffers = self._filled(slot, past)
        self._bind_feeds(past, count, tokens)
        self._bind_kv(buffers, past, count)
        self.session.run_with_iobinding(self._io)
        buffers.past, buffers.spare = buffers.spare, buffers.past
        buffers.length = past + count
        made = self._tensor(buffers.past, past + count)
        self._slot(slot)[..., past : past + count, :] = made[..., past:, :]
        return self._last_logits(count)

    def _bind_feeds(self, past: int, count: int, tokens: tuple[int, ...]) -> None:
        facts, io = self.facts, self._io
        self._ids.array[:count, 0] = tokens
        self._ids.publish()
        self._ids.bind(io, facts.input_ids, 1, count)
        if facts.attention_mask:
            self._mask.bind(io, facts.attention_mask, 1, past + count)
        if facts.position_ids:
            self._positions.array[:count] = self._ends[past : past + count]
            self._positions.publish()
            self._positions.bind(io, facts.position_ids, 1, count)
        if facts.logits_to_keep:
            self._keep.bind_number(io, facts.logits_to_keep, facts.keep_rank)
        made = 1 if facts.last_logits else count
        if made * facts.vocab > self._logits.size:
            self._logits = np.zeros(made * facts.vocab, self._logits_dtype)
        kind, address = self._logits_dtype.type, self._logits.ctypes.data
        io.bind_output(facts.logits, "cpu", 0, kind, [1, made, facts.vocab], address)

    def _bind_kv(self, buffers: _Buffers, past: int, count: int) -> None:
        facts, kind = self.facts, self.slab.dtype.type
        before = [1, facts.kv_heads, past, facts.head_dim]
        after = [1, facts.kv_heads, past + count, facts.head_dim]
        size = buffers.past[0, 0].nbytes
        old, new = buffers.past.ctypes.data, buffers.spare.ctypes.data
        names = ((facts.past_key, facts.present_key), (facts.past_value, facts.present_value))
        for layer in range(facts.layers):
            for part, (given, made) in enumerate(names):
                offset = (layer * 2 + part) * size
                self._io.bind_input(at(given, layer), "cpu", 0, kind, before, old + offset)
                self._io.bind_output(at(made, layer), "cpu", 0, kind, after, new + offset)

    def _filled(self, slot: int, past: int) -> _Buffers:
        """The buffers of a slot, its first ``past`` tokens in ``past``."""
        buffers = self._buffers.get(slot)
        if buffers is None:
            buffers = self._buffers[slot] = self._pool.pop() if self._pool else self._new()
        if buffers.length != past or not self._goes_on(buffers, slot):
            self._tensor(buffers.past, past)[...] = self._slot(slot)[..., :past, :]
            buffers.length = past
        return buffers

    def _goes_on(self, buffers: _Buffers, slot: int) -> bool:
        """Whether the last token is what the slab says, bit for bit: NaN is equal to itself."""
        last = buffers.length - 1
        if last < 0:
            return True
        kept: bytes = self._slot(slot)[..., last, :].tobytes()
        made: bytes = self._tensor(buffers.past, last + 1)[..., last, :].tobytes()
        return kept == made

    def _slot(self, slot: int) -> Any:
        """[layers, 2, kv_heads, tokens_max, head_dim] of the slab, a view."""
        assert self.slab.array is not None  # It lies on the CPU.
        return self.slab.array[:, :, slot]

    def _tensor(self, buffer: np.ndarray[Any, Any], tokens: int) -> Any:
        """[layers, 2, kv_heads, tokens, head_dim] of a buffer, a view."""
        heads, dim = self.facts.kv_heads, self.facts.head_dim
        used = buffer[:, :, : heads * tokens * dim]
        return used.reshape(*buffer.shape[:2], heads, tokens, dim)

    def _new(self) -> _Buffers:
        facts = self.facts
        shape = (facts.layers, 2, facts.kv_heads * self.tokens_max * facts.head_dim)
        return _Buffers(np.zeros(shape, self.slab.dtype), np.zeros(shape, self.slab.dtype))

    def _release(self, slot: int) -> None:
        """The row does not go on: the slab has all of it, its buffers are for another one."""
        buffers = self._buffers.pop(slot, None)
        if buffers is not None:
            buffers.length = 0
            self._pool.append(buffers)


def decoder_class(facts: ModelFacts) -> type[Decoder]:
    """What executes a model's plans."""
    return GrowingDecoder if facts.path == GROWING else Decoder
