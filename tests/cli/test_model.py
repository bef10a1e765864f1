"""`lockstep model` and `lockstep agent`."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorfolders

DATA = Path(__file__).parents[1] / "data"
MODEL = str(DATA / "genai-micro-fp32")
GUESTS = Path(__file__).parents[1] / "guests"


def test_inspect_says_what_a_folder_is(place: Any) -> None:
    result = place.lockstep("model", "inspect", MODEL, "--json")
    assert result.code == 0, result.err
    assert (result.json["kind"], result.json["layers"]) == ("llama", 2)
    assert set(result.json["sha256"]) >= {"model.onnx", "model.onnx.data", "tokenizer.json"}
    shown = place.lockstep("model", "inspect", MODEL)
    assert re.search("^kind +llama$", shown.out, re.MULTILINE)


def test_inspect_says_how_a_growing_graph_runs_and_what_is_not_taken(place: Any) -> None:
    folder = place.path / "model"
    shutil.copytree(DATA / "optimum-micro", folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": 2, "temperature": 0.6}')
    shown = place.lockstep("model", "inspect", "model")
    assert shown.code == 0, shown.err
    for line in (
        "^layout +hugging face$", "^file +model.onnx$", "^path +growing$",
        "^because +no GroupQueryAttention", "^cost +each row runs alone",
        r"^vocabulary +512, begins 0, ends \[2\] \(generation_config.json\)$",
        "^generation_config +not taken, unless a request says .*temperature 0.6",
    ):  # fmt: skip
        assert re.search(line, shown.out, re.MULTILINE), line


def test_one_of_several_files_is_named(place: Any) -> None:
    folder = place.path / "model"
    shutil.copytree(DATA / "optimum-micro", folder)
    shutil.copy(folder / "model.onnx", folder / "model_fp32.onnx")
    refused = place.lockstep("model", "inspect", "model")
    assert refused.code == 2
    assert "model.onnx, model_fp32.onnx; say which" in refused.err
    named = "--file", "model_fp32.onnx", "--json"
    assert place.lockstep("model", "inspect", "model", *named).json["file"] == "model_fp32.onnx"
    (folder / "expected.json").unlink()
    checked = place.lockstep("model", "check", "model", *named)
    assert (checked.code, checked.json["file"]) == (0, "model_fp32.onnx")


def test_inspect_shows_sampling_defaults_as_not_taken(place: Any) -> None:
    shutil.copytree(MODEL, place.path / "model")
    without = place.lockstep("model", "inspect", "model")
    assert "not taken: the model has no generation_config.json" in without.out
    path = place.path / "model" / "generation_config.json"
    path.write_text('{"do_sample": true, "temperature": 0.6, "eos_token_id": 2}')
    shown = place.lockstep("model", "inspect", "model")
    assert 'not taken, unless a request says "defaults": "model": do_sample True' in shown.out
    path.write_text('{"do_sample": true, "temperature": 99}')
    found = place.lockstep("model", "inspect", "model", "--json").json["generation_config"]
    assert found["values"] == {"do_sample": True, "temperature": 99}
    assert "temperature: 99, expected 0 to 10.0" in found["error"]


def test_folders_of_tensors_are_inspected_and_checked(place: Any) -> None:
    tensorfolders.arithmetic(place.path / "ranker")
    shown = place.lockstep("model", "inspect", "ranker")
    assert shown.code == 0, shown.err
    for line in (
        "^kind +tensors$",
        "^embeddings +no: the folder has no tok",
        "^inputs +a: float32",
    ):
        assert re.search(line, shown.out, re.MULTILINE), line
    checked = place.lockstep("model", "check", "ranker", "--json")
    assert (checked.code, checked.json["class"]) == (0, "run"), checked.err


def test_inspect_says_that_a_template_cannot_be_used(place: Any) -> None:
    shutil.copytree(MODEL, place.path / "model")
    (place.path / "model" / "chat_template.jinja").write_text("{% if %}")
    shown = place.lockstep("model", "inspect", "model")
    assert shown.code == 0, shown.err
    told = "^chat template +cannot be used, messages are refused and prompts are served: Expected"
    assert re.search(told, shown.out, re.MULTILINE)


def test_check_prints_the_proven_class_last(place: Any) -> None:
    result = place.lockstep("model", "check", MODEL, "--require-class", "batch-invariant")
    assert result.code == 0, result.out
    assert result.out.splitlines()[-1] == "batch-invariant"
    assert result.err == ""


def test_check_fails_on_unexpected_tokens(place: Any) -> None:
    shutil.copytree(MODEL, place.path / "model")
    path = place.path / "model" / "expected.json"
    path.write_text(re.sub(r'("greedy_ids": \[\s*)\d+', r"\g<1>7", path.read_text()))
    result = place.lockstep("model", "check", "model", "--json")
    assert result.code == 3, result.err
    assert result.json["ok"] is False and result.json["class"] == "batch-invariant"
    assert "FAILED: " in result.err


def test_a_module_is_described(place: Any) -> None:
    path = str(GUESTS / "echo.wasm")
    result = place.lockstep("agent", "check", path, "--json")
    assert result.code == 0, result.err
    assert set(result.json) >= {"form", "imports", "exports", "memory", "bytes", "sha256"}
    assert result.json["imports"] == ["lockstep.turn (i32, i32, i32, i32) -> (i32)"]
    shown = place.lockstep("agent", "check", path)
    labels = [line.split()[0] for line in shown.out.splitlines()]
    assert labels == ["module", "form", "memory", "size", "sha256", "imports", "exports", "result"]


@pytest.mark.parametrize("name", sorted(path.name for path in GUESTS.glob("*_*.wasm")))
def test_every_form_is_accepted(place: Any, name: str) -> None:
    assert place.lockstep("agent", "check", str(GUESTS / name)).code == 0
