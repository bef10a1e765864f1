"""Execution providers: which were asked for, which were got, and why not.

ONNX Runtime falls back silently: a session that was asked for CUDA and cannot load a library runs
on the CPU and says so in a log line only, and the lists of available providers name the GPU on
machines without one. `session.get_providers()` is the only truth; this compares it with the wish.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from lockstep.engine.errors import ModelRejected, ProviderMissing, UsageError
from lockstep.workers.inference.candidates import OPSET_MIN, with_candidates
from lockstep.workers.inference.ort import ort
from lockstep.workers.inference.stderr import CapturedStderr
from lockstep.workers.inference.surgery import last_position_only

SUFFIX = "ExecutionProvider"
NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
SHORT = {name: short for short, name in NAMES.items()}
GPUS = ("tensorrt", "cuda", "rocm", "migraphx")
CURES = {
    "tensorrt": "put the TensorRT libraries for CUDA 13 on the library path, "
    "after what CUDA needs: pip install -e '.[cuda]' in the checkout",
    "cuda": "install NVIDIA's driver and the CUDA 13 and cuDNN 9 libraries: "
    "pip install -e '.[cuda]' in the checkout",
    "rocm": "put AMD's build of onnxruntime in place of this one; newer ROCm has migraphx instead",
    "migraphx": "put AMD's build of onnxruntime with MIGraphX in place of this one",
    "OpenVINOExecutionProvider": "put onnxruntime-openvino in place of onnxruntime",
    "QNNExecutionProvider": "put onnxruntime-qnn in place of onnxruntime",
    "DmlExecutionProvider": "it is in onnxruntime-directml, which is for Windows",
    "CoreMLExecutionProvider": "it is in the builds for macOS",
}
# Where a session wants its tensors (names of ONNX Runtime's allocators) -> how its Python half
# calls the device. Only devices whose memory has addresses: slots of the slab are bound by address.
DEVICES = {"cuda": "cuda", "hip": "cuda", "cann": "cann"}
HOST = ("cpu", "cudapinned", "hippinned", "cannpinned", "openvino_cpu")
NOT_BUILT = "not in this build of onnxruntime"
MISSING_LIBRARY = re.compile(r"with error: (\S+): cannot open shared object")
DETAIL_CHARS_MAX = 300
LOG_ERRORS = 3  # ONNX Runtime's log severity: errors and worse.


class Weights(Protocol):
    """An opened folder with a graph (`model.ModelFolder`, `tensor_folder.TensorFolder`)."""

    path: Path

    def weights(self) -> tuple[bytes, list[str], list[Any], list[int]]:
        """The ONNX file and what it names: names, mapped contents, sizes."""
        ...

    def unchanged(self) -> None:
        """Raise ModelRejected when a file was written to since it was opened."""
        ...


@dataclass(frozen=True, slots=True)
class Missing:
    """A provider that was asked for and not got."""

    provider: str
    cause: str
    cure: str


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """What was asked for and what runs, by short names, in order.

    Attributes:
        asked, got, missing: Providers.
        notes: What else people should know of how the model runs; one line each.
        graphs: Decoding is captured by the device and repeated (captured.py).
    """

    asked: tuple[str, ...]
    got: tuple[str, ...]
    missing: tuple[Missing, ...]
    notes: tuple[str, ...] = ()
    graphs: bool = False

    @property
    def running(self) -> str:
        """The provider that nodes go to first."""
        return self.got[0]

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        missing = [asdict(item) for item in self.missing]
        report = {"asked": list(self.asked), "got": list(self.got), "missing": missing}
        return {**report, "cuda_graphs": True} if self.graphs else report

    def lines(self) -> list[str]:
        """For a person: one line for each provider that is missing, and the notes."""
        missing = [
            f"{item.provider}: {item.cause}; running on {self.running}. To get it, {item.cure}"
            for item in self.missing
        ]
        return [*missing, *self.notes]


def full_names(asked: Sequence[str]) -> list[str]:
    """Providers as ONNX Runtime names them, in order.

    Raises:
        UsageError: none, one twice, or a name that is neither short nor ends as theirs do.
    """
    names = [NAMES.get(name, name) for name in asked]
    for short, name in zip(asked, names, strict=True):
        if not name.endswith(SUFFIX) or name == SUFFIX:
            raise UsageError(
                f"provider {short!r} is unknown, expected {', '.join(NAMES)} or a name of "
                f"onnxruntime's, like OpenVINO{SUFFIX}{_near(short)}"
            )
    if not names or len(set(names)) != len(names):
        raise UsageError(f"providers = {list(asked)}: expected at least one, each once")
    return names


def _near(wrong: str) -> str:
    """What was meant, probably."""
    known = {name.lower(): name for name in NAMES}
    for name in sorted(ort.get_all_providers()):
        known.setdefault(name.removesuffix(SUFFIX).lower(), SHORT.get(name, name))
    near = difflib.get_close_matches(wrong.removesuffix(SUFFIX).lower(), known, 1)
    return f"; did you mean {known[near[0]]!r}?" if near else ""


def device_of(memory: str) -> str:
    """The device of a tensor, as ONNX Runtime's Python half calls it.

    Args:
        memory: Name of the memory where the session wants the tensor.

    Raises:
        ProviderMissing: it has no addresses, or nobody knows it.
    """
    name = memory.lower()
    if name in HOST:
        return "cpu"
    if name not in DEVICES:
        raise ProviderMissing(
            f"the provider wants its tensors in memory called {memory!r}; expected one of "
            f"{', '.join((*HOST, *DEVICES))}: only memory with addresses can hold the slots of "
            "keys and values. Take that provider out of `providers`"
        )
    return DEVICES[name]


def open_session(
    folder: Weights,
    asked: Sequence[str],
    require: str | None,
    intra_op_threads: int,
    cache: Path | None = None,
    logits: str = "",
    graphs: bool = False,
    spin: bool = False,
    candidates: int = 0,
) -> tuple[Any, ProviderReport]:
    """A session on the first providers that work, made of the bytes that the folder hashed.

    Args:
        folder: Checked model.
        asked: Providers in order of preference.
        require: Refuse to run without this one.
        intra_op_threads: Threads of an operator; part of the run's identity.
        cache: Folder for the kernel choices that GPU builds make by timing, so that they are made
            once and then kept.
        logits: Output that is needed of the last position only (surgery.py); empty: the graph
            stays as it is.
        graphs: As `provider_options`.
        spin: Its threads spin while they wait for one another; no bit depends on it.
        candidates: So many of the largest of ``logits`` are outputs, too (candidates.py); 0: none.

    Raises:
        UsageError: a provider's name is unknown, or ``require`` is not among those asked for.
        ProviderMissing: ``require`` was not got.
        ModelRejected: ONNX Runtime refuses the model on every provider, or candidates cannot be
            cut in it.
    """
    names = full_names(asked)
    needed = NAMES.get(require, require) if require else None
    if needed is not None and needed not in names:
        raise UsageError(f"require = {require!r}, but providers = {list(asked)} do not ask for it")
    options = _options(intra_op_threads, cache, spin)
    given = [(name, provider_options(name, cache, graphs)) for name in names]
    session, found = _create(folder, given, options, _edit(folder, logits, candidates))
    got = session.get_providers()
    missing = []
    for name in names:
        if name not in got:
            cause = found.get(name) or "onnxruntime took it out of the session"
            missing.append(_missing(name, cause))
    report = ProviderReport(
        tuple(SHORT.get(name, name) for name in names),
        tuple(SHORT.get(name, name) for name in got),
        tuple(missing),
    )
    if needed is not None and needed not in got:
        line = next(item for item in missing if NAMES.get(item.provider, item.provider) == needed)
        raise ProviderMissing(f"require = {require!r}: {line.cause}. To get it, {line.cure}")
    return session, report


def of_attention(report: ProviderReport, device: str, dtype: str) -> tuple[str, ...]:
    """A note where a GPU has no kernel for a model's attention, which then runs on the CPU.

    Args:
        report: What was got.
        device: Where the session wants keys and values.
        dtype: Of them.
    """
    if report.running not in GPUS or device != "cpu":
        return ()
    return (
        f"{report.running}: no attention for keys and values of {dtype} there, so all rows cross "
        "to the CPU and back in each layer: take a float16 export of the model",
    )


def _missing(name: str, cause: str) -> Missing:
    short = SHORT.get(name, name)
    default = f"use a build of onnxruntime that has {name}"
    return Missing(short, cause, CURES.get(short, default))


def _edit(folder: Weights, logits: str, candidates: int) -> Callable[[bytes], bytes]:
    """What is changed of a graph in memory."""

    def edit(graph: bytes) -> bytes:
        if logits:
            graph = last_position_only(graph, logits) or graph
        if not candidates:
            return graph
        cut = with_candidates(graph, logits, candidates)
        if cut is None:
            raise ModelRejected(
                f"{folder.path}: no candidates can be cut in its graph: that takes operators of "
                f"opset {OPSET_MIN} or later; set candidates = 0 (leave it out) for this model"
            )
        return cut

    return edit


def _create(
    folder: Weights,
    given: list[tuple[str, dict[str, str]]],
    options: Any,
    edit: Callable[[bytes], bytes],
) -> tuple[Any, dict[str, str]]:
    """The session, and the cause for each provider that is known to fail."""
    built = ort.get_available_providers()
    names = [name for name, _ in given]
    causes = {name: f"{NOT_BUILT}{_unknown(name)}" for name in names if name not in built}
    usable = [name for name in names if name in built]
    graph, files, mapped, sizes = folder.weights()
    graph = edit(graph)
    if files:
        options.add_external_initializers_from_files_in_memory(files, mapped, sizes)
    while True:
        providers = [(name, its) for name, its in given if name in usable]
        with CapturedStderr() as log:
            if any(SHORT.get(name) in ("cuda", "tensorrt") for name in usable):
                ort.preload_dlls()  # Libraries that came as wheels; prints what it lacks.
            session, error = _try(graph, options, providers or [(NAMES["cpu"], {})])
        for name in usable:
            cause = _cause(name, log.text, error)
            if cause:
                causes[name] = cause
        if session is not None:
            folder.unchanged()
            return session, causes
        dropped = next((name for name in usable if name != NAMES["cpu"]), None)
        if dropped is None:
            raise ModelRejected(f"{folder.path}: onnxruntime refuses the model: {error}")
        # TensorRT raises where CUDA only logs. Go on without the most preferred one.
        usable.remove(dropped)


def _unknown(name: str) -> str:
    """More about a provider that is not in the build: whether ONNX Runtime has ever heard of it."""
    if name in SHORT or name in ort.get_all_providers():
        return ""
    return f", which knows no {name}{_near(name)}"


def _try(graph: bytes, options: Any, providers: list[Any]) -> tuple[Any, str]:
    try:
        return ort.InferenceSession(graph, options, providers, enable_fallback=0), ""
    except Exception as error:  # Its exceptions have no common base below Exception.
        return None, str(error).strip()[:2000]


def _cause(name: str, log: str, error: str) -> str:
    """What ONNX Runtime said about a provider, shortened to what a person can act on."""
    stem = name.removesuffix(SUFFIX).lower()
    lines = [line for line in (*log.splitlines(), *error.splitlines()) if stem in line.lower()]
    for line in lines:
        library = MISSING_LIBRARY.search(line)
        if library and f"providers_{stem}" in line:
            return f"the library {library[1]} is missing"
    return lines[-1][:DETAIL_CHARS_MAX] if lines else ""


def _options(intra_op_threads: int, cache: Path | None, spin: bool) -> Any:
    """Session options under which the order of every sum is fixed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = LOG_ERRORS
    options.use_deterministic_compute = True
    # Where agents share the cores, a pool that spins between steps takes them from turns.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "0")
    # Kernels that are chosen by timing them would differ from process to process.
    options.add_session_config_entry("ep.cuda.fpa_intb_gemm", "0")
    options.add_session_config_entry("ep.cuda.enable_gemm_auto_tune", "0")
    if cache is not None:
        prefix = str(cache / "gemm")
        options.add_session_config_entry("ep.cuda.gemm_tactic_cache_prefix", prefix)
    return options


def provider_options(name: str, cache: Path | None, graphs: bool = False) -> dict[str, str]:
    """Options of a provider: choices by timing off, or kept in ``cache``.

    ``graphs``: steps are captured once and then repeated by the device (workers/inference/
    decoder.py).
    """
    if SHORT.get(name) == "cuda":
        return {
            "use_tf32": "0",
            "cudnn_conv_algo_search": "HEURISTIC",
            "tunable_op_enable": "0",
            "tunable_op_tuning_enable": "0",
            "arena_extend_strategy": "kSameAsRequested",
            "enable_cuda_graph": "1" if graphs else "0",
        }
    if SHORT.get(name) == "rocm":
        return {"tunable_op_enable": "0", "tunable_op_tuning_enable": "0"}
    if SHORT.get(name) == "tensorrt" and cache is not None:
        # TensorRT always chooses by timing; the engine cache makes the first choice the last one.
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(cache),
            "trt_force_timing_cache": "1",
        }
    return {}
