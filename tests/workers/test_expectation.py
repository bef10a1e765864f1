"""Which equality is promised where something of the machine or the versions differs."""

from pathlib import Path
from typing import Any

import pytest

from lockstep.workers.expectation import RULES, SINCE, Beforehand, expect

DOC = Path(__file__).resolve().parents[2] / "docs" / "verify.md"


@pytest.mark.parametrize(
    ("lines", "leaves", "words"),
    [
        ([], "bits", "machine type, provider and versions are the same"),
        (["versions.python: 3.11.1 -> 3.12.0"], "bits", "another python: no bit is left to it"),
        (["cpu.model: a -> b"], "texts", "the same texts at best (digest_text)"),
        (["providers[0].got[0]: cpu -> cuda"], "texts", "another providers"[:16]),
        (["platform: linux x86_64 -> linux aarch64"], "texts", "another platform"),
        (["versions.onnxruntime-gpu: 1 -> 2"], "texts", "another onnxruntime-gpu: its kernels"),
        (["versions.wasmtime: 50 -> 51"], "none", "count fuel in another way"),
        (["planet: earth -> mars"], "texts", "it is new"),
    ],
)
def test_each_kind_of_difference_leaves_what_the_table_says(
    lines: list[str], leaves: str, words: str
) -> None:
    found = expect(lines)
    assert found.leaves == leaves and words in found.text


def test_the_weakest_difference_decides_and_its_reasons_are_told() -> None:
    found = expect(
        ["versions.python: 1 -> 2", "cpu.model: a -> b", "cpu.features: x -> y", "platform: p -> q"]
    )
    assert found.leaves == "texts" and "python" not in found.text
    assert found.text.count("another cpu") == 1 and "another platform" in found.text


def test_what_can_be_expected_is_said_before_the_run_begins() -> None:
    heard: list[tuple[str, Any]] = []
    listener = Beforehand(lambda what, value: heard.append((what, value)))
    for what, value in (("note", "slow"), ("note", f"{SINCE}cpu.model: a -> b"), ("run", "/r")):
        listener(what, value)
    assert [what for what, _ in heard] == ["note", "note", "expect", "run"]
    assert heard[2][1].startswith("the same texts at best")
    assert listener.differences == ["cpu.model: a -> b"]


def test_the_document_has_every_rule_of_the_table() -> None:
    text = DOC.read_text().split("## What can be expected")[1].split("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [tuple(row) for row in cells] == [(f"`{r.key}`", r.leaves, r.why) for r in RULES]
