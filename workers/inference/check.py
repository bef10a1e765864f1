"""`lockstep model inspect` and `check`: what a folder is, and which equality holds for it here.

Two classes are proven by doing it, never assumed: "run" means that two sessions give the same bits
for the same plans; "batch-invariant" that, besides, a row's bits are the same alone and in a batch
that others join and leave.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.engine import keyed
from lockstep.engine.errors import UsageError
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.expected import (
    CPU_FLAG,
    INT4_OPERATOR,
    Case,
    cpu_flags,
    read_expected,
)
from lockstep.workers.inference.generation import generation_facts
from lockstep.workers.inference.greedy import Row, generate
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.provider import SHORT
from lockstep.workers.inference.sampler import finite

CLASSES = ("none", "run", "batch-invariant")  # From weak to strong.
ROWS = 4
TOKENS_NEW = 24
PROMPT_LENGTHS = (1, 5, 17, 40)  # Where a folder brings no prompts.
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


def inspect(path: str | Path) -> dict[str, Any]:
    """What a model folder is, without running it. JSON-able.

    Raises:
        ModelRejected: as `ModelFolder.open`.
    """
    folder = ModelFolder.open(path)
    try:
        facts, graph = folder.facts, folder.graph
        expected = read_expected(folder.path, facts)
        return {
            "path": str(folder.path),
            "kind": facts.kind,
            "layers": facts.layers,
            "kv_heads": facts.kv_heads,
            "head_dim": facts.head_dim,
            "vocab": facts.vocab,
            "context": facts.context,
            "eos": list(facts.eos),
            "bos": facts.bos,
            "dtype": facts.dtype,
            "int4": INT4_OPERATOR in graph.operators,
            "chat_template": folder.template is not None,
            "generation_config": generation_facts(folder.generation_config),
            "expected_cases": 0 if expected is None else len(expected.cases),
            "inputs": [str(port) for port in graph.inputs],
            "outputs": [str(port) for port in graph.outputs],
            "operators": list(graph.operators),
            "sha256": folder.identity(),
        }
    finally:
        folder.close()


def check(
    path: str | Path,
    require_class: str = "run",
    *,
    providers: Sequence[str] = ("cpu",),
    intra_op_threads: int = 1,
) -> CheckReport:
    """Load a model, generate with it, and prove how far its bits can be relied upon.

    Args:
        path: Model folder.
        require_class: "run" or "batch-invariant": less is not ok.
        providers: In order of preference.
        intra_op_threads: Threads of an operator.

    Raises:
        UsageError: the class or a provider is unknown.
        ModelRejected: the folder cannot be used at all.
    """
    if require_class not in CLASSES[1:]:
        raise UsageError(f"class {require_class!r}, expected one of {', '.join(CLASSES[1:])}")
    folder = ModelFolder.open(path)
    try:
        return _Check(folder, providers, intra_op_threads).report(require_class)
    finally:
        folder.close()


class _Check:
    """One check: three generations and what comes of comparing them."""

    def __init__(
        self, folder: ModelFolder, providers: Sequence[str], intra_op_threads: int
    ) -> None:
        self.folder = folder
        self.providers = providers
        self.threads = intra_op_threads
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
        return Decoder(self.folder, ROWS, self.tokens_max, self.threads, self.providers)

    def report(self, require_class: str) -> CheckReport:
        facts = self.folder.facts
        if not self.cases:
            raise UsageError(f"{self.folder.path}: a context of {facts.context} is too short")
        identity = self.folder.identity()
        first = self.decoder()
        alone = [generate(first, [case.prompt], self.new, slot=0)[0] for case in self.cases]
        batch = generate(first, [case.prompt for case in self.cases], self.new)
        provider = first.report
        first.close()
        second = self.decoder()
        again = [generate(second, [case.prompt], self.new, slot=0)[0] for case in self.cases]
        second.close()
        self.lines.append(
            f"{facts.kind}: {facts.layers} layers, vocabulary {facts.vocab}, context "
            f"{facts.context}, keys and values {facts.dtype}, on {provider.running}"
        )
        self.lines.extend(provider.lines())
        rows = [*alone, *batch, *again]
        self.say(all(finite(row.logits) for row in rows), "logits are finite")
        proven = self._prove(alone, again, batch)
        compared = self._compare(alone, identity, provider.running)
        reached = CLASSES.index(proven) >= CLASSES.index(require_class)
        self.say(reached, f"class {proven}, at least {require_class} is required")
        self.lines.append(proven)
        found = {
            "path": str(self.folder.path),
            "class": proven,
            "require_class": require_class,
            "expected": compared,
            "provider": provider.to_json(),
            "failed": list(self.bad),
            "sha256": identity,
        }
        return CheckReport(not self.bad, proven, tuple(self.lines), found | {"ok": not self.bad})

    def _prove(self, alone: list[Row], again: list[Row], batch: list[Row]) -> str:
        """The class, from rows that must be equal bit for bit."""
        count = f"{len(alone)} prompts of {self.new} tokens"
        run = all(a.same(b) for a, b in zip(alone, again, strict=True))
        self.say(run, f"run against run: {count} in two sessions, {_equal(run)}")
        if not run:
            return "none"
        together = all(a.same(b) for a, b in zip(alone, batch, strict=True))
        self.lines.append(f"alone against batch: rows join and leave, {_equal(together)}")
        return "batch-invariant" if together else "run"

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
        return self._tokens(rows, exact_logits=not int4)

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
    stream = keyed.key(0, "model check", "prompt")
    return tuple(
        Case(
            f"len{length}",
            tuple(keyed.draw(stream, length, index) % vocab for index in range(length)),
        )
        for length in PROMPT_LENGTHS
    )


def _equal(same: bool) -> str:
    return "bit-equal" if same else "different bits"


def _list(wrong: list[str]) -> str:
    return f"are different in {', '.join(wrong)}" if wrong else "are as expected"
