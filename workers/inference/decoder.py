"""The decoder: executes step plans on one ONNX Runtime session, without a choice of its own.

One fixed slab of KV slots. First the copies of a plan are done, in order. Then each chunk of
prefill runs alone on a view of its slot, and all decoding rows run together over the contiguous
range of slots from the first to the last of them. The composition of every run is a function of
the plan, so the same plans give the same bits even where kernels are not batch-invariant.

The mask. Graphs of onnxruntime-genai's builder use two things of ``attention_mask``: the sum of a
row (tokens that count, the new ones included) and its width (room in the buffer). So it is bound
once, ``tokens_max`` wide, zero but for column 0, which holds the sum.

Idle rows in the range compute too. Such a row is given its own length as past, so what it writes
lies just behind what it keeps: nothing that is kept is touched, and the next token that is really
fed there overwrites it. A full row has no place behind its content. A legal plan never has one
(the last token of an answer is never fed, so a slot keeps at most ``tokens_max - 1``); if one
comes, the range is split around it into two runs. Saving and restoring its last position instead
would not survive being killed in between: the slab outlives this process.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.engine.errors import LockstepBug, UsageError
from lockstep.engine.plan import Chunk, Copy, Decode, ModelPlan
from lockstep.workers.inference import huge_pages, slab_file
from lockstep.workers.inference.captured import Captured
from lockstep.workers.inference.copies import Copies
from lockstep.workers.inference.feed import Feed
from lockstep.workers.inference.kv import KvSlab
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.probe import probe
from lockstep.workers.inference.provider import device_of, open_session
from lockstep.workers.inference.signature import at

# One binding holds two OrtValues for each key and value tensor, and making one costs about 0.5 ms
# for 30 layers; a run of ranges that grow and shrink by a row fits in here.
BINDINGS_MAX = 128
ROWS_LIMIT = 4096
KEPT_LIMIT = 65_536
THREADS_LIMIT = 1024

Logits = np.ndarray[Any, np.dtype[np.float32]]


class _Binding:
    """A slot range bound to a session, the length of ids it is bound for, its options.

    Attributes:
        landed: Logits on the device, as a value that can be fetched; None: they land in memory.
    """

    __slots__ = ("io", "landed", "length", "options")

    def __init__(self, io: Any, options: Any) -> None:
        self.io = io
        self.length = 0
        self.options = options
        self.landed: Any = None


class Decoder:
    """One model, its KV slots and its session. Created after the fork, never before.

    Attributes:
        facts: Of the model.
        report: Which providers were asked for and got.
        slab: The KV slots.
        copies: Copies between them.
        outlives: Whether they outlive this process.
        session: ONNX Runtime's session.
        last_only: It gives logits of the last position alone, not of every one.
    """

    def __init__(
        self,
        folder: ModelFolder,
        rows_max: int,
        tokens_max: int,
        intra_op_threads: int,
        providers: Sequence[str] = ("cpu",),
        require: str | None = None,
        *,
        rows_kept: int = 0,
        kv_buffer: memoryview | None = None,
        kv_file: int = slab_file.NONE,
        cache: Path | None = None,
        graphs: bool = False,
        spin: bool = False,
        options: Any = None,
    ) -> None:
        """Create the session and the slab.

        Args:
            folder: Checked model; may be closed afterwards.
            rows_max: KV slots that compute.
            tokens_max: Tokens of a slot, at most the model's context.
            intra_op_threads: Threads of an operator.
            providers: In order of preference.
            require: Refuse to run without this provider.
            rows_kept: KV slots behind them, that rest.
            kv_buffer: Memory for the slab (CPU only), used as it is.
            kv_file: Likewise, as a file in memory (workers/inference/slab_file.py); not used
                where the session wants the slab on a device.
            cache: Folder for kernel choices of GPU providers.
            graphs: Decode by CUDA graphs, one for each slot range (captured.py).
            spin: As `open_session`.
            options: Of every run of the session; None: the usual ones.

        Raises:
            UsageError: a size is out of range, a provider's name is unknown.
            ProviderMissing: ``require`` was not got.
            ModelRejected: ONNX Runtime refuses the model.
        """
        facts = folder.facts
        _in_range("rows_max", rows_max, 1, ROWS_LIMIT)
        _in_range("rows_kept", rows_kept, 0, KEPT_LIMIT)
        _in_range("tokens_max", tokens_max, facts.tokens_min, facts.context)
        _in_range("intra_op_threads", intra_op_threads, 1, THREADS_LIMIT)
        self.facts, self.rows_max, self.tokens_max = facts, rows_max, tokens_max
        self._slots = rows_max + rows_kept
        self.session, self.report = open_session(
            folder, providers, require, intra_op_threads, cache, facts.logits, graphs, spin
        )
        self._options = options
        _assert_denormals()
        devices = self._devices()
        # Logits of the last position alone: by the graph's own input for it, by surgery.py, or by
        # the exporter.
        shapes = {port.name: port.shape for port in self.session.get_outputs()}
        self.last_only = facts.last_logits or shapes[facts.logits][1] == 1
        probe(self.session, folder.path, facts, self.last_only, options)
        device = self._slab_device(devices)
        self.outlives = kv_file != slab_file.NONE and device == "cpu"
        word = None
        if self.outlives:
            needed = KvSlab.bytes_needed(facts, self._slots, tokens_max)
            rows = f"({rows_max} + {rows_kept}) rows of {tokens_max} tokens"
            word, kv_buffer = slab_file.mapped(kv_file, needed, f", {rows}")
        self.slab = KvSlab(facts, rows_max, tokens_max, device, kv_buffer, rows_kept)
        self.copies = Copies(self.slab, word)
        self._filled = huge_pages.Filled(*self.slab.memory())
        self._ids = Feed(max(rows_max, tokens_max), 1, devices[facts.input_ids])
        self._mask = Feed(rows_max, tokens_max, devices.get(facts.attention_mask, "cpu"))
        device = devices.get(facts.position_ids, "cpu")
        self._positions = Feed(max(rows_max, tokens_max), 1, device)
        self._keep = Feed(1, 1, devices.get(facts.logits_to_keep, "cpu"))
        self._keep.array[:] = 1
        self._keep.publish()
        self._logits_dtype = np.dtype(
            {port.name: port.dtype for port in folder.graph.outputs}[facts.logits]
        )
        self._logits = np.zeros(rows_max * facts.vocab, self._logits_dtype)
        self._captured: Captured | None = None
        if graphs:
            size = rows_max * facts.vocab
            self._captured = Captured(
                self.slab.device, size, self._logits_dtype.type, self.last_only
            )
        self._bindings: OrderedDict[tuple[int, int], _Binding] = OrderedDict()

    def run(self, plan: ModelPlan, step: int | None = None) -> list[tuple[int, Logits]]:
        """Execute the copies of a plan, then its chunks, each alone, then its decodes in one run.

        Args:
            plan: ``lengths`` has the tokens of every slot after the chunks.
            step: Which one it is of: a plan of the same step as the one before is the same plan,
                cut off by the end of a process, and no copy is done twice. None: none of a run.

        Returns:
            (slot, float32 logits of shape (vocab,)) for each chunk with ``last``, in order, then
            for each decode in slot order. The logits of decodes are views: valid until the next
            call. They are not checked: NaN and Inf come out as they are.

        Raises:
            LockstepBug: the plan is not one that a planner may make; nothing was run.
        """
        self._check(plan)
        self._filled.step()
        self.copies.run(step, plan.copies)
        results: list[tuple[int, Logits]] = []
        for chunk in plan.chunks:
            logits = self._prefill(chunk)
            if chunk.last:
                results.append((chunk.slot, logits.astype(np.float32)))
        if plan.decodes:
            rows = self._decode(plan)
            results.extend((row.slot, rows[row.slot]) for row in plan.decodes)
        return results

    def close(self) -> None:
        """Destroy the session and let go of the slab. The decoder cannot be used afterwards."""
        self._bindings.clear()
        self.session = None
        self.copies.close()
        self.slab.close()

    def _prefill(self, chunk: Chunk) -> Any:
        count = len(chunk.tokens)
        self._ids.array[:count, 0] = chunk.tokens
        self._positions.array[:count, 0] = range(chunk.start, chunk.start + count)
        self._mask.array[0, 0] = chunk.start + count
        return self._last_logits(self._run(chunk.slot, 1, count), count)

    def _last_logits(self, logits: Any, count: int) -> Any:
        """Those of the last of ``count`` positions of a run of one row; a view."""
        vocab, last = self.facts.vocab, 0 if self.last_only else count - 1
        return logits[last * vocab : (last + 1) * vocab]

    def _decode(self, plan: ModelPlan) -> dict[int, Logits]:
        """Logits of each active slot, views into the output buffer where its type is float32."""
        active = {row.slot: row for row in plan.decodes}
        rows: dict[int, Logits] = {}
        for first, count in self._ranges(plan):
            if rows:  # The next run writes over the buffer.
                rows = {slot: logits.copy() for slot, logits in rows.items()}
            slots = range(first, first + count)
            self._ids.array[:count, 0] = [active[s].token if s in active else 0 for s in slots]
            lengths = np.asarray(plan.lengths[first : first + count], np.int64)
            np.add(lengths, 1, out=self._mask.array[:count, 0])
            self._positions.array[:count, 0] = lengths
            logits = self._run(first, count, 1)
            logits = logits[: count * self.facts.vocab].reshape(count, -1)
            logits = logits.astype(np.float32, copy=False)
            rows.update((slot, logits[slot - first]) for slot in slots if slot in active)
        return rows

    def _ranges(self, plan: ModelPlan) -> Iterator[tuple[int, int]]:
        """(first slot, slots) of each run: one, or more where a full idle row is in the way."""
        slots = [row.slot for row in plan.decodes]
        first = last = slots[0]
        for slot in slots[1:]:
            if self.tokens_max in plan.lengths[last + 1 : slot]:
                yield first, last - first + 1
                first = slot
            last = slot
        yield first, last - first + 1

    def _run(self, first: int, count: int, length: int) -> Any:
        """Logits as one flat array, a view that is valid until the next run."""
        binding = self._binding(first, count, length)
        self._ids.publish()
        self._mask.publish()
        if self.facts.position_ids:
            self._positions.publish()
        self.session.run_with_iobinding(binding.io, binding.options or self._options)
        return self._logits if binding.landed is None else binding.landed.numpy().reshape(-1)

    def _binding(self, first: int, count: int, length: int) -> _Binding:
        """The binding of a slot range for ids of shape (count, length)."""
        captured = self._captured
        # A captured range is bound for one token and stays so; chunks have bindings of their own.
        key = first, 0 if captured and length > 1 else count
        binding = self._bindings.get(key)
        if binding is None:
            options = captured.options(length == 1) if captured else None
            binding = _Binding(self.session.io_binding(), options)
            self.slab.bind(binding.io, first, count)
            self._mask.bind(binding.io, self.facts.attention_mask, count, self.tokens_max)
            if self.facts.logits_to_keep:
                self._keep.bind_number(binding.io, self.facts.logits_to_keep, self.facts.keep_rank)
            self._bindings[key] = binding
            if len(self._bindings) > BINDINGS_MAX:
                self._bindings.popitem(last=False)
        else:
            self._bindings.move_to_end(key)
        if binding.length != length:
            self._bind_length(binding, count, length)
        return binding

    def _bind_length(self, binding: _Binding, count: int, length: int) -> None:
        facts = self.facts
        self._ids.bind(binding.io, facts.input_ids, count, length)
        if facts.position_ids:
            self._positions.bind(binding.io, facts.position_ids, count, length)
        shape = [count, 1 if self.last_only else length, facts.vocab]
        if self._captured is not None:
            binding.landed = self._captured.land(binding.io, facts.logits, shape)
        else:
            self._bind_logits(binding.io, shape)
        binding.length = length

    def _bind_logits(self, io: Any, shape: list[int]) -> None:
        size = math.prod(shape)
        if size > self._logits.size:  # A longer chunk than any before.
            self._logits = np.zeros(size, self._logits_dtype)
            for other in self._bindings.values():
                other.length = 0  # Bound to the old buffer, which is gone.
        kind, address = self._logits_dtype.type, self._logits.ctypes.data
        # On the CPU whatever the device: ONNX Runtime copies the result out by itself.
        io.bind_output(self.facts.logits, "cpu", 0, kind, shape, address)

    def _slab_device(self, devices: dict[str, str]) -> str:
        """Where keys and values lie: where the session wants them."""
        return devices[at(self.facts.past_key, 0)]

    def _devices(self) -> dict[str, str]:
        """Input name to the device on which the session wants it."""
        inputs, infos = self.session.get_inputs(), self.session.get_input_memory_infos()
        return {port.name: device_of(info.name) for port, info in zip(inputs, infos, strict=True)}

    def _check(self, plan: ModelPlan) -> None:
        """Refuse what would write outside a slot or read a token that is not there."""
        lengths, vocab, full = plan.lengths, self.facts.vocab, self.tokens_max
        fits = not lengths or 0 <= min(lengths) <= max(lengths) <= full
        if len(lengths) > self._slots or not fits:
            raise LockstepBug(f"plan: lengths {lengths}, expected 0 to {full} for each row")
        for copy in plan.copies:
            _check_copy(copy, self._slots, full)
        for chunk in plan.chunks:
            room = full - chunk.start
            if not (0 <= chunk.slot < self.rows_max and 0 < len(chunk.tokens) <= room <= full):
                raise LockstepBug(f"plan: chunk {chunk}, slots of {full} tokens")
            if not 0 <= min(chunk.tokens) <= max(chunk.tokens) < vocab:
                raise LockstepBug(f"plan: chunk {chunk}, token ids are 0 to {vocab - 1}")
            if chunk.start and len(chunk.tokens) == 1:
                raise LockstepBug(f"plan: chunk {chunk} is a later chunk of 1 token (rule 1)")
        previous = -1
        for row in plan.decodes:
            _check_decode(row, previous, lengths[: self.rows_max], full, vocab)
            previous = row.slot


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


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} = {value}, expected {low} to {high} for this model")


def _assert_denormals() -> None:
    """A library linked with -ffast-math turns denormal numbers off for the whole process."""
    if float(np.float64(5e-324) * np.float64(1.0)) == 0.0:
        raise UsageError(
            "denormal numbers are off: a loaded library was linked with -ffast-math, and the "
            "bits of a run would depend on it"
        )
