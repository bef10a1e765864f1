"""expected.json: what a model folder is known to answer, and whether that holds on this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.blob import Blob
from lockstep.workers.inference.config import ModelFacts, read_json

EXPECTED = "expected.json"
CPU_FLAG = "avx512_vnni"
INT4_OPERATOR = "MatMulNBits"
CASES_MAX = 64


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt and, where it is known, its greedy continuation and first logits (id, value)."""

    name: str
    prompt: tuple[int, ...]
    greedy: tuple[int, ...] = ()
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Expected:
    """The cases, and the hashes of the files that they belong to."""

    cases: tuple[Case, ...]
    sha256: dict[str, str]

    def foreign(self, identity: dict[str, str]) -> list[str]:
        """Files that are not those the expectations belong to."""
        return [name for name, digest in self.sha256.items() if identity.get(name) != digest]


def read_expected(folder: Path, facts: ModelFacts) -> Expected | None:
    """The folder's expectations, or None where it has none.

    Raises:
        ModelRejected: malformed, or ids beyond the vocabulary.
    """
    if not (folder / EXPECTED).exists():
        return None
    blob = Blob(folder, EXPECTED)
    try:
        value = read_json(bytes(blob.data), EXPECTED)
    finally:
        blob.close()
    try:
        cases = tuple(_case(item) for item in value["cases"])
        sha256 = {str(name): str(digest) for name, digest in value.get("sha256", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelRejected(f"{EXPECTED}: malformed: {error!r}") from None
    if not 1 <= len(cases) <= CASES_MAX:
        raise ModelRejected(f"{EXPECTED}: {len(cases)} cases, expected 1 to {CASES_MAX}")
    for case in cases:
        ids = (*case.prompt, *case.greedy, *(token for token, _ in case.top))
        if not case.prompt or not case.greedy or not 0 <= min(ids) <= max(ids) < facts.vocab:
            raise ModelRejected(f"{EXPECTED}: case {case.name!r}: no ids, or beyond the vocabulary")
    return Expected(cases, sha256)


def _case(item: dict[str, Any]) -> Case:
    return Case(
        name=str(item["name"]),
        prompt=tuple(int(token) for token in item["prompt_ids"]),
        greedy=tuple(int(token) for token in item["greedy_ids"]),
        top=tuple((int(top["id"]), float(top["logit"])) for top in item.get("first_top5", ())),
    )


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction sets of the first CPU, as Linux names them; empty where it cannot be told."""
    try:
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(found.partition(":")[2].split())
