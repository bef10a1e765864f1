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
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.engine.errors import UsageError
from lockstep.engine.plan import Chunk, ModelPlan
from lockstep.workers.inference import captured, huge_pages, slab_file
from lockstep.workers.inference.candidates import IDS, SOUND, VALUES
from lockstep.workers.inference.config import SLAB
from lockstep.workers.inference.copies import Copies
from lockstep.workers.inference.exact import Floats32
from lockstep.workers.inference.feed import Feeds
from lockstep.workers.inference.kv import KvSlab
from lockstep.workers.inference.landing import Landing
from lockstep.workers.inference.legal import check_plan
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.probe import probe
from lockstep.workers.inference.provider import device_of, of_attention, open_session
from lockstep.workers.inference.shortlist import Row, Shortlist
from lockstep.workers.inference.signature import at

# One binding holds two OrtValues for each key and value tensor, and making one costs about 0.5 ms
# for 30 layers; a run of ranges that grow and shrink by a row fits in here.
BINDINGS_MAX = 128
ROWS_LIMIT = 4096
KEPT_LIMIT = 65_536
THREADS_LIMIT = 1024

NO_LANDING = (
    "CUDA graphs and candidates need a model on the fixed slab whose end is recognised, so that "
    "its logits are those of the last position: `lockstep model inspect` shows its shape"
)

Logits = Floats32


class _Binding:
    """A slot range bound to a session, the length of ids it is bound for, its options.

    Attributes:
        landed: By name, outputs that stay where they are and can be fetched; none: logits land in
            memory.
    """

    __slots__ = ("io", "landed", "length", "options")

    def __init__(self, io: Any, options: Any) -> None:
        self.io = io
        self.length = 0
        self.options = options
        self.landed: dict[str, Any] = {}


class Decoder:
    """One model, its KV slots and its session. Created after the fork, never before.

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
        options: Of every run of the session; None: the usual ones. Captured runs have theirs.
        candidates: As `open_session`.

    Attributes:
        facts: Of the model.
        report: Which providers were asked for and got.
        slab: The KV slots.
        copies: Copies between them.
        outlives: Whether they outlive this process.
        session: ONNX Runtime's session.
        last_only: It gives logits of the last position alone, not of every one.
        candidates: Largest logits of a row that can be had in its place; 0: none.

    Raises:
        UsageError: a size is out of range, a provider's name is unknown, or the graph is not
            one in which steps are captured or candidates cut.
        ProviderMissing: ``require`` was not got.
        ModelRejected: ONNX Runtime refuses the model.
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
        candidates: int = 0,
    ) -> None:
        """Create the session and the slab."""
        facts = folder.facts
        _in_range("rows_max", rows_max, 1, ROWS_LIMIT)
        _in_range("rows_kept", rows_kept, 0, KEPT_LIMIT)
        _in_range("tokens_max", tokens_max, facts.tokens_min, facts.context)
        _in_range("intra_op_threads", intra_op_threads, 1, THREADS_LIMIT)
        self.facts, self.rows_max, self.tokens_max = facts, rows_max, tokens_max
        self._slots = rows_max + rows_kept
        _in_range("candidates", candidates, 0, facts.vocab)
        self.session, self.report = open_session(
            folder, providers, require, intra_op_threads, cache, facts.logits, graphs, spin,
            candidates,
        )  # fmt: skip
        self._graphs = graphs
        self._options = captured.options(of=options) if graphs else options
        _assert_denormals()
        devices = self._devices()
        # Logits of the last position alone: by the graph's own input for it, by surgery.py, or by
        # the exporter.
        shapes = {port.name: port.shape for port in self.session.get_outputs()}
        self.last_only = facts.last_logits or shapes[facts.logits][1] == 1
        if (graphs or candidates) and not (self.last_only and facts.path == SLAB):
            raise UsageError(NO_LANDING)
        probe(self.session, folder.path, facts, self.last_only, self._options)
        device = self._slab_device(devices)
        notes = of_attention(self.report, device, facts.dtype) if facts.path == SLAB else ()
        self.report = replace(self.report, notes=(*self.report.notes, *notes))
        self.outlives = kv_file != slab_file.NONE and device == "cpu"
        word, kv_buffer = self._mapped(kv_file) if self.outlives else (None, kv_buffer)
        self.slab = KvSlab(facts, rows_max, tokens_max, device, kv_buffer, rows_kept)
        self.copies = Copies(self.slab, word)
        self._filled = huge_pages.Filled(*self.slab.memory())
        self._feeds = Feeds(facts, devices, rows_max, tokens_max)
        self._logits_dtype = np.dtype(
            {port.name: port.dtype for port in folder.graph.outputs}[facts.logits]
        )
        self._logits = np.zeros(rows_max * facts.vocab, self._logits_dtype)
        self.candidates = candidates
        self._landings = self._landing(graphs or candidates > 0)
        self._bindings: OrderedDict[tuple[int, int], _Binding] = OrderedDict()

    def _mapped(self, kv_file: int) -> tuple[memoryview, memoryview]:
        """The word and the bytes of the slab in a file that outlives this process."""
        kept = self._slots - self.rows_max
        needed = KvSlab.bytes_needed(self.facts, self._slots, self.tokens_max)
        rows = f"({self.rows_max} + {kept}) rows of {self.tokens_max} tokens"
        return slab_file.mapped(kv_file, needed, f", {rows}")

    def _landing(self, wanted: bool) -> dict[str, tuple[Landing, int]]:
        """Outputs that stay on the device: where, and how many numbers of a row."""
        if not wanted:
            return {}
        kind, count = self._logits_dtype.type, self.candidates
        widths: dict[str, tuple[int, Any]] = {self.facts.logits: (self.facts.vocab, kind)}
        if count:
            widths |= {VALUES: (count, kind), IDS: (count, np.int64), SOUND: (1, kind)}
        return {
            name: (Landing(self.slab.device, self.rows_max * width, its), width)
            for name, (width, its) in widths.items()
        }

    def run(self, plan: ModelPlan, step: int | None = None) -> list[tuple[int, Logits]]:
        """As `rows`, whole ones all of them."""
        rows = self.rows(plan, step)
        return [(slot, row) for slot, row in rows if not isinstance(row, Shortlist)]

    def rows(
        self, plan: ModelPlan, step: int | None = None, short: Collection[int] = ()
    ) -> list[tuple[int, Row]]:
        """Execute the copies of a plan, then its chunks, each alone, then its decodes in one run.

        Args:
            plan: ``lengths`` has the tokens of every slot after the chunks.
            step: Which one it is of: a plan of the same step as the one before is the same plan,
                cut off by the end of a process, and no copy is done twice. None: none of a run.
            short: Slots of whose rows `candidates` are enough.

        Returns:
            (slot, float32 logits of shape (vocab,), or a shortlist of them) for each chunk with
            ``last``, in order, then for each decode in slot order. The logits of decodes are views:
            valid until the next call. They are not checked: NaN and Inf come out as they are.

        Raises:
            LockstepBug: the plan is not one that a planner may make; nothing was run.
        """
        check_plan(plan, self.rows_max, self._slots, self.tokens_max, self.facts.vocab)
        self._filled.step()
        self.copies.run(step, plan.copies)
        results: list[tuple[int, Row]] = []
        for chunk in plan.chunks:
            row = self._prefill(chunk, chunk.slot in short)
            if chunk.last:
                results.append((chunk.slot, row))
        if plan.decodes:
            rows = self._decode(plan, short)
            results.extend((row.slot, rows[row.slot]) for row in plan.decodes)
        return results

    def close(self) -> None:
        """Destroy the session and let go of the slab. The decoder cannot be used afterwards."""
        self._bindings.clear()
        self.session = None
        self.copies.close()
        self.slab.close()

    def _prefill(self, chunk: Chunk, short: bool) -> Row:
        """The row of the chunk's last position, not a view."""
        count = len(chunk.tokens)
        feeds = self._feeds
        feeds.ids.array[:count, 0] = chunk.tokens
        feeds.positions.array[:count, 0] = range(chunk.start, chunk.start + count)
        feeds.mask.array[0, 0] = chunk.start + count
        binding = self._run(chunk.slot, 1, count)
        if short:
            return self._shortlists(binding, 1)[0]
        if binding.landed and not chunk.last:
            return self._logits  # Nobody asks: they stay where they are.
        logits: Logits = self._last_logits(self._fetch(binding), count).astype(np.float32)
        return logits

    def _last_logits(self, logits: Any, count: int) -> Any:
        """Those of the last of ``count`` positions of a run of one row; a view."""
        vocab, last = self.facts.vocab, 0 if self.last_only else count - 1
        return logits[last * vocab : (last + 1) * vocab]

    def _decode(self, plan: ModelPlan, short: Collection[int]) -> dict[int, Row]:
        """The row of each active slot, views into the output buffer where its type is float32."""
        feeds, active = self._feeds, {row.slot: row for row in plan.decodes}
        rows: dict[int, Row] = {}
        for first, count in self._ranges(plan):
            if rows:  # The next run writes over the buffer.
                rows = {slot: _kept(row) for slot, row in rows.items()}
            slots = range(first, first + count)
            feeds.ids.array[:count, 0] = [active[s].token if s in active else 0 for s in slots]
            lengths = np.asarray(plan.lengths[first : first + count], np.int64)
            np.add(lengths, 1, out=feeds.mask.array[:count, 0])
            feeds.positions.array[:count, 0] = lengths
            binding = self._run(first, count, 1)
            here = [slot for slot in slots if slot in active]
            enough = all(slot in short for slot in here)
            found = self._shortlists(binding, count) if enough else self._whole(binding, count)
            rows.update((slot, found[slot - first]) for slot in here)
        return rows

    def _whole(self, binding: _Binding, count: int) -> list[Row]:
        """Logits of each row of a run of one token each, in the order of slots; views."""
        logits = self._fetch(binding)[: count * self.facts.vocab].reshape(count, -1)
        return list(logits.astype(np.float32, copy=False))

    def _fetch(self, binding: _Binding) -> Any:
        """Logits as one flat array, a view that is valid until the next run."""
        landed = binding.landed.get(self.facts.logits)
        return self._logits if landed is None else landed.numpy().reshape(-1)

    def _shortlists(self, binding: _Binding, count: int) -> list[Row]:
        """Candidates of each row of a run, in the order of slots; no views."""
        values, ids, sound = (
            binding.landed[name].numpy().reshape(count, -1) for name in (VALUES, IDS, SOUND)
        )
        values, ids, good = values.astype(np.float32), ids.copy(), np.isfinite(sound[:, 0])
        return [Shortlist(values[n], ids[n], bool(good[n])) for n in range(count)]

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

    def _run(self, first: int, count: int, length: int) -> _Binding:
        """Run a slot range; its outputs are valid until the next run."""
        binding = self._binding(first, count, length)
        self._feeds.publish()
        self.session.run_with_iobinding(binding.io, binding.options or self._options)
        return binding

    def _binding(self, first: int, count: int, length: int) -> _Binding:
        """The binding of a slot range for ids of shape (count, length)."""
        # A captured range is bound for one token and stays so; chunks have bindings of their own.
        key = first, 0 if self._graphs and length > 1 else count
        binding = self._bindings.get(key)
        if binding is None:
            options = None
            if self._graphs and length == 1:
                options = captured.options(captured.graph_of(first, count, self.rows_max))
            binding = _Binding(self.session.io_binding(), options)
            self.slab.bind(binding.io, first, count)
            self._feeds.bind_mask(binding.io, count, self.tokens_max)
            self._feeds.bind_keep(binding.io)
            self._bindings[key] = binding
            if len(self._bindings) > BINDINGS_MAX:
                self._bindings.popitem(last=False)
        else:
            self._bindings.move_to_end(key)
        if binding.length != length:
            self._bind_length(binding, count, length)
        return binding

    def _bind_length(self, binding: _Binding, count: int, length: int) -> None:
        self._feeds.bind(binding.io, count, length)
        if self._landings:
            binding.landed = {
                name: landing.bind(binding.io, name, [count, 1, width])
                for name, (landing, width) in self._landings.items()
            }
        else:
            shape = [count, 1 if self.last_only else length, self.facts.vocab]
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


def _kept(row: Row) -> Row:
    """What outlives the next run."""
    return row if isinstance(row, Shortlist) else row.copy()


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
