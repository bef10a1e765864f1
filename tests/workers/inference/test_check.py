"""`lockstep model inspect` and `check` over good, foreign and damaged folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorfolders

from lockstep.engine.errors import ModelRejected, UsageError
from lockstep.workers.inference import check as module
from lockstep.workers.inference import selftest
from lockstep.workers.inference.check import check, inspect
from lockstep.workers.inference.expected import cpu_flags
from lockstep.workers.inference.greedy import Row

Edit = Callable[[Path, Callable[[Any], None]], None]


def test_good_folder_is_proven_and_as_expected(any_model: Path) -> None:
    report = check(any_model, "batch-invariant")
    assert report.ok, report.lines
    assert (report.proven, report.lines[-1]) == ("batch-invariant", "batch-invariant")
    assert report.facts["expected"] == "equal"
    assert json.loads(json.dumps(report.facts))["provider"]["got"] == ["cpu"]


def test_folder_without_expectations_is_still_proven(copy: Path) -> None:
    (copy / "expected.json").unlink()
    report = check(copy)
    assert report.ok
    assert (report.proven, report.facts["expected"]) == ("batch-invariant", "none")


def test_changed_weights_are_seen_by_hash(copy: Path) -> None:
    data = bytearray((copy / "model.onnx.data").read_bytes())
    data[0] ^= 1
    (copy / "model.onnx.data").write_bytes(data)
    report = check(copy)
    assert not report.ok
    assert "belongs to other files than model.onnx.data" in report.facts["failed"][0]


def test_wrong_tokens_and_logits_are_seen(copy: Path, edit_json: Edit) -> None:
    def change(expected: Any) -> None:
        expected["cases"][1]["greedy_ids"][23] ^= 1
        expected["cases"][2]["first_top5"][0]["logit"] += 0.001

    edit_json(copy / "expected.json", change)
    report = check(copy)
    assert not report.ok
    assert report.facts["expected"] == "different"
    assert len(report.facts["failed"]) == 2
    assert "are different in len5" in report.facts["failed"][0]


def test_nan_is_seen(copy: Path) -> None:
    (copy / "expected.json").unlink()
    size = (copy / "model.onnx.data").stat().st_size
    (copy / "model.onnx.data").write_bytes(np.full(size // 4, np.nan, np.float32).tobytes())
    report = check(copy)
    assert not report.ok
    assert report.facts["failed"] == ["logits are finite"]


def test_int4_expectations_are_not_compared_on_other_cpus(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cpu_flags", lambda: frozenset({"avx2"}))
    report = check(data / "genai-micro-int4")
    assert report.ok
    assert report.facts["expected"] == "not comparable"
    assert any("avx512_vnni" in line for line in report.lines)


@pytest.mark.parametrize(("differs", "proven"), [(0, "none"), (1, "run")])
def test_rows_that_differ_lower_the_class(
    fp32: Path, monkeypatch: pytest.MonkeyPatch, differs: int, proven: str
) -> None:
    """Calls of `generate`: one prompt each for alone, all of them for the batch, then again."""
    real = selftest.generate

    def generate(decoder: Any, prompts: Any, *args: Any, **more: Any) -> list[Row]:
        rows = real(decoder, prompts, *args, **more)
        calls.append(len(prompts))
        if (differs and len(prompts) > 1) or (not differs and len(calls) > 5):
            rows[0].logits[3, 3] += np.float32(1e-6)
        return rows

    calls: list[int] = []
    monkeypatch.setattr(selftest, "generate", generate)
    report = check(fp32, "batch-invariant")
    assert (report.ok, report.proven, report.lines[-1]) == (False, proven, proven)
    calls.clear()
    assert check(fp32, "run").ok == (proven == "run")


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.pop("cases"),
        lambda e: e.update(cases=[]),
        lambda e: e.update(cases=5),
        lambda e: e.update(sha256=[1]),
        lambda e: e["cases"][0].update(greedy_ids=[512]),
        lambda e: e["cases"][0].update(prompt_ids=[]),
        lambda e: e["cases"][0].update(prompt_ids=["x"]),
        lambda e: e["cases"][0].pop("name"),
    ],
)
def test_malformed_expectations_are_named(
    copy: Path, edit_json: Edit, change: Callable[[Any], None]
) -> None:
    edit_json(copy / "expected.json", change)
    with pytest.raises(ModelRejected, match=r"expected\.json: "):
        check(copy)


def test_a_tokenizer_that_a_run_would_refuse_is_refused(copy: Path, edit_json: Edit) -> None:
    edit_json(copy / "tokenizer.json", lambda c: c["model"].update(dropout=0.1))
    for look in (inspect, check):
        with pytest.raises(ModelRejected, match=r"dropout is 0\.1"):
            look(copy)


def test_a_template_that_cannot_be_compiled_is_told_and_the_model_is_good(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{% if %}")
    (copy / "expected.json").unlink()
    found, report = inspect(copy), check(copy)
    assert found["chat_template"] and found["chat_template_error"].startswith("Expected an exp")
    assert report.ok and report.facts["chat_template_error"] == found["chat_template_error"]
    told = "the chat template cannot be used, messages are refused and prompts are served: Expec"
    assert [line for line in report.lines if line.startswith(told)]


def test_a_folder_of_tensors_is_told_and_proven_as_one(tmp_path: Path) -> None:
    folder = tensorfolders.arithmetic(tmp_path)
    found, report = inspect(folder), check(folder)
    assert (found["kind"], found["file"], found["embeds"]) == ("tensors", "model.onnx", "")
    assert found["embeds_not"] == "the folder has no tokenizer.json"
    assert "genai_config.json: missing" in found["no_decoder"]
    assert [text.split(":")[0] for text in found["inputs"]] == ["a", "b"]
    assert json.dumps(found)
    assert report.ok
    assert (report.proven, report.lines[-1], report.facts["class"]) == ("run", "run", "run")
    weak = check(folder, "batch-invariant")
    assert not weak.ok and weak.facts["failed"] == [
        "class run, at least batch-invariant is required"
    ]


def test_a_folder_of_embeddings_is_told_as_one(tmp_path: Path) -> None:
    found = inspect(tensorfolders.embedding(tmp_path))
    assert found["embeds"].startswith("last_hidden_state, texts of at most ")
    assert (found["embeds_not"], found["kind"]) == ("", "tensors")


def test_a_damaged_folder_is_refused_as_what_it_looks_like(copy: Path, tmp_path: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelRejected, match=r"tokenizer\.json: missing"):
        check(copy)  # Its graph takes a past.
    with pytest.raises(ModelRejected, match=r"genai_config\.json: missing, and config\.json too"):
        inspect(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"\x0a")
    with pytest.raises(ModelRejected, match=f"^{tmp_path}/model.onnx: byte 1 of 1: a number"):
        inspect(tmp_path)


def test_unknown_class_is_refused(fp32: Path) -> None:
    with pytest.raises(UsageError, match="'none', expected one of run, batch-invariant"):
        check(fp32, "none")


def test_inspect_tells_the_layout_without_running_it(data: Path) -> None:
    found = inspect(data / "genai-micro-int4")
    assert (found["int4"], found["chat_template"], found["expected_cases"]) == (True, True, 4)
    assert (found["layers"], found["eos"], found["context"]) == (2, [2], 512)
    assert found["inputs"][0] == "input_ids: int64[batch_size, sequence_length]"
    assert json.dumps(found)


def test_cpu_flags_are_read_or_empty(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags\t\t: fpu avx512_vnni\n\nflags : other\n")
    assert cpu_flags(info) == {"fpu", "avx512_vnni"}
    assert cpu_flags(tmp_path / "none") == frozenset()
