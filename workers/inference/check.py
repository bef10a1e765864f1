"""`lockstep model inspect` and `check`: what a folder is, and which equality holds for it here.

The class of a decoder is proven as in selftest.py, with the prompts and at the length of
expected.json; that of a folder of tensors as in tensor_trial.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.engine.errors import ModelRejected, UsageError
from lockstep.engine.fleet import TOKENS_MAX_LEAST, Model
from lockstep.workers.inference.config import CONFIG
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.describe import TENSORS, describe, describe_tensors
from lockstep.workers.inference.expected import (
    CPU_FLAG,
    INT4_OPERATOR,
    Case,
    cpu_flags,
    read_expected,
)
from lockstep.workers.inference.greedy import JOIN_STEPS, Row
from lockstep.workers.inference.growing import decoder_class
from lockstep.workers.inference.layout import HF_CONFIG, onnx_files
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.provider import SHORT
from lockstep.workers.inference.sampler import finite
from lockstep.workers.inference.selftest import CLASSES, PROMPT_LENGTHS, Trial, prompts_of, trial
from lockstep.workers.inference.tensor_folder import TensorFolder
from lockstep.workers.inference.tensor_model import TensorModel
from lockstep.workers.inference.text import NO_MESSAGES, Text

ROWS = 4
TOKENS_NEW = 24
LOGIT_TOLERANCE = 1e-4  # Of float32; ten times what another library was seen to differ by.


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found.

    Attributes:
        ok: Everything that was compared is as it must be.
        proven: One of `CLASSES`.
        lines: For people, in order; the last one is the class.
        facts: For programs: JSON-able.
    """

    ok: bool
    proven: str
    lines: tuple[str, ...]
    facts: dict[str, Any]


def inspect(path: str | Path, file: str = "") -> dict[str, Any]:
    """What a model folder is, without running it. JSON-able; `describe` and `describe_tensors`.

    Args:
        path: Model folder.
        file: Which of its ONNX files; empty: the only one.

    Raises:
        ModelRejected: as `opened`.
    """
    folder, why = opened(path, file)
    try:
        if isinstance(folder, TensorFolder):
            return describe_tensors(folder, why)
        return describe(folder)
    finally:
        folder.close()


def check(
    path: str | Path,
    require_class: str = "run",
    *,
    providers: Sequence[str] = ("cpu",),
    intra_op_threads: int = 1,
    file: str = "",
) -> CheckReport:
    """Load a model, generate with it, and prove how far its bits can be relied upon.

    Args:
        path: Model folder.
        require_class: "run" or "batch-invariant": less is not ok.
        providers: In order of preference.
        intra_op_threads: Threads of an operator.
        file: Which of its ONNX files; empty: the only one.

    Raises:
        UsageError: the class or a provider is unknown.
        ModelRejected: the folder cannot be used at all.
    """
    if require_class not in CLASSES[1:]:
        raise UsageError(f"class {require_class!r}, expected one of {', '.join(CLASSES[1:])}")
    folder, _ = opened(path, file)
    try:
        if isinstance(folder, TensorFolder):
            return _check_tensors(folder, require_class, tuple(providers), intra_op_threads)
        return _Check(folder, providers, intra_op_threads).report(require_class)
    finally:
        folder.close()


def opened(path: str | Path, file: str = "") -> tuple[ModelFolder | TensorFolder, str]:
    """A folder as what it is: a decoder's, or one of tensors and why it is no decoder's.

    It is one of tensors if no genai_config.json says otherwise and its graph takes no past.

    Raises:
        ModelRejected: it is neither; of the two refusals, that of the kind which it looks like.
    """
    root = Path(path)
    try:
        return ModelFolder.open(root, file), ""
    except ModelRejected as error:
        refused = error
    if not root.is_dir() or (root / CONFIG).exists():
        raise refused
    try:
        folder = TensorFolder.open(root, file)
    except ModelRejected:
        if (root / HF_CONFIG).exists() or not onnx_files(root):
            raise refused from None
        raise
    if any("past" in port.name for port in folder.graph.inputs):
        folder.close()
        raise refused
    return folder, str(refused)


def _check_tensors(
    folder: TensorFolder, require_class: str, providers: tuple[str, ...], threads: int
) -> CheckReport:
    """The class of a graph of tensors, proven as before a run, or none where it takes no trial."""
    model = Model(
        name=folder.filename, path=str(folder.path), file=folder.filename, kind=TENSORS,
        providers=providers, require="", intra_op_threads=threads,
        rows_max=1, tokens_max=TOKENS_MAX_LEAST, prefill_tokens_per_step=1, period=1,
    )  # fmt: skip
    loaded = TensorModel(model)
    loaded.close()
    proven = loaded.proven
    reached = CLASSES.index(proven or CLASSES[0]) >= CLASSES.index(require_class)
    class_line = f"class {proven}, at least {require_class} is required"
    if not proven:
        class_line = "no class: the graph refuses the inputs that are tried (docs/tensors.md)"
    lines = [
        f"tensors: {len(loaded.inputs)} inputs, {len(loaded.outputs)} outputs, "
        f"on {loaded.report.running}",
        *loaded.report.lines(),
        class_line if reached else f"FAILED: {class_line}",
        proven or "untried",
    ]
    found = {
        "path": str(folder.path), "file": folder.filename, "layout": TENSORS, "ok": reached,
        "class": proven, "require_class": require_class, "provider": loaded.report.to_json(),
        "failed": [] if reached else [class_line], "sha256": loaded.identity,
    }  # fmt: skip
    return CheckReport(reached, proven, tuple(lines), found)


class _Check:
    """One check: three generations and what comes of comparing them."""

    def __init__(
        self, folder: ModelFolder, providers: Sequence[str], intra_op_threads: int
    ) -> None:
        self.folder = folder
        self.providers = providers
        self.threads = intra_op_threads
        self.text = Text(folder)
        self.expected = read_expected(folder.path, folder.facts)
        self.cases = self.expected.cases if self.expected else _cases(folder.facts.vocab)
        new = max(len(case.greedy) or TOKENS_NEW for case in self.cases)
        room = folder.facts.context - new
        self.cases = tuple(case for case in self.cases if len(case.prompt) <= room)
        self.new = new
        self.tokens_max = max((len(case.prompt) for case in self.cases), default=1) + new
        self.bad: list[str] = []
        self.lines: list[str] = []

    def say(self, good: bool, line: str) -> None:
        self.lines.append(line if good else f"FAILED: {line}")
        if not good:
            self.bad.append(line)

    def decoder(self) -> Decoder:
        made = decoder_class(self.folder.facts)
        return made(self.folder, ROWS, self.tokens_max, self.threads, self.providers)

    def report(self, require_class: str) -> CheckReport:
        facts = self.folder.facts
        if not self.cases:
            raise UsageError(f"{self.folder.path}: a context of {facts.context} is too short")
        identity = self.folder.identity()
        prompts = [case.prompt for case in self.cases]
        tried = trial(self.decoder, prompts, self.new, join_steps=JOIN_STEPS)
        provider = tried.report
        self.lines.append(
            f"{facts.kind}: {facts.layers} layers, vocabulary {facts.vocab}, context "
            f"{facts.context}, keys and values {facts.dtype}, {facts.path}, on {provider.running}"
        )
        self.lines.extend(provider.lines())
        if self.text.template_error:
            self.lines.append(f"{NO_MESSAGES}: {self.text.template_error}")
        rows = [*tried.alone, *tried.batch, *tried.again]
        self.say(all(finite(row.logits) for row in rows), "logits are finite")
        proven = self._prove(tried)
        compared = self._compare(tried.alone, identity, provider.running)
        reached = CLASSES.index(proven) >= CLASSES.index(require_class)
        self.say(reached, f"class {proven}, at least {require_class} is required")
        self.lines.append(proven)
        found = {
            "path": str(self.folder.path),
            "file": facts.filename,
            "layout": facts.layout,
            "path_of_execution": facts.path,
            "class": proven,
            "require_class": require_class,
            "expected": compared,
            "provider": provider.to_json(),
            "chat_template_error": self.text.template_error,
            "failed": list(self.bad),
            "sha256": identity,
        }
        return CheckReport(not self.bad, proven, tuple(self.lines), found | {"ok": not self.bad})

    def _prove(self, tried: Trial) -> str:
        """The class, told."""
        count = f"{len(tried.alone)} prompts of {self.new} tokens"
        self.say(tried.run, f"run against run: {count} in two sessions, {_equal(tried.run)}")
        if tried.run:
            equal = _equal(tried.together)
            self.lines.append(f"alone against batch: rows join and leave, {equal}")
        return tried.proven

    def _compare(self, rows: list[Row], identity: dict[str, str], provider: str) -> str:
        """Tokens and first logits against expected.json: "equal", "different" or why not."""
        expected = self.expected
        if expected is None:
            self.lines.append("expected.json: there is none, nothing to compare")
            return "none"
        foreign = expected.foreign(identity)
        if foreign:
            self.say(False, f"expected.json: belongs to other files than {', '.join(foreign)}")
            return "different"
        int4 = INT4_OPERATOR in self.folder.graph.operators
        if int4 and (provider != SHORT["CPUExecutionProvider"] or CPU_FLAG not in cpu_flags()):
            self.lines.append(
                f"expected.json: not comparable here; int4 expectations are for CPUs with "
                f"{CPU_FLAG}"
            )
            return "not comparable"
        # What is expected of a model with 16-bit numbers may have been computed with 32 bits.
        return self._tokens(rows, not int4 and self.folder.facts.dtype == "float32")

    def _tokens(self, rows: list[Row], exact_logits: bool) -> str:
        wrong = []
        largest = 0.0
        for case, row in zip(self.cases, rows, strict=True):
            if row.tokens[: len(case.greedy)] != case.greedy:
                wrong.append(case.name)
            for token, logit in case.top:
                largest = max(largest, abs(float(row.logits[0, token]) - logit))
        total = sum(len(case.greedy) for case in self.cases)
        self.say(not wrong, f"expected.json: {total} tokens {_list(wrong)}")
        near = largest <= LOGIT_TOLERANCE or not exact_logits
        self.say(near, f"expected.json: first logits differ by at most {largest:.2g}")
        return "equal" if near and not wrong else "different"


def _cases(vocab: int) -> tuple[Case, ...]:
    """Prompts for a folder that brings none: the same ids on every machine."""
    prompts = prompts_of(vocab, PROMPT_LENGTHS)
    return tuple(Case(f"len{len(prompt)}", prompt) for prompt in prompts)


def _equal(same: bool) -> str:
    return "bit-equal" if same else "different bits"


def _list(wrong: list[str]) -> str:
    return f"are different in {', '.join(wrong)}" if wrong else "are as expected"
