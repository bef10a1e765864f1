"""The self-test of a model: what it proves, what it keeps, what it costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fleets
import numpy as np
import pytest

from lockstep.engine.fleet import Model
from lockstep.workers.inference import selftest
from lockstep.workers.inference.greedy import Row
from lockstep.workers.inference.loaded import LoadedModel
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.proofs import Proof, Proofs, devices, subject
from lockstep.workers.inference.selftest import CLASSES, PROMPT_LENGTHS, prompts_of, proof_of
from lockstep.workers.job import Job
from lockstep.workers.launch import cache_folder, launch

FILES = {"model.onnx": "00"}


def sizes(path: Path, rows: int = 8, tokens: int = 96) -> Model:
    return Model("tiny", str(path), ("cpu",), "", 1, rows, tokens, 16, 1)


@pytest.fixture
def folder(any_model: Path) -> Iterator[ModelFolder]:
    opened = ModelFolder.open(any_model)
    yield opened
    opened.close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Decoders that the self-test made."""
    real = selftest.decoder_for
    found: list[Any] = []

    def make(*args: Any, **more: Any) -> Any:
        found.append(real(*args, **more))
        return found[-1]

    monkeypatch.setattr(selftest, "decoder_for", make)
    return found


@pytest.mark.parametrize(("rows", "tokens"), [(1, 4), (1, 96), (2, 5), (3, 40), (16, 256)])
def test_a_good_model_is_batch_invariant_in_whatever_sizes(
    folder: ModelFolder, rows: int, tokens: int
) -> None:
    proof = proof_of(folder, sizes(folder.path, rows, tokens), Proofs(None), 60)
    assert proof == Proof("batch-invariant", ("cpu",))


def test_it_tries_the_runs_own_sizes_in_two_sessions_and_leaves_none(
    folder: ModelFolder, made: list[Any]
) -> None:
    proof_of(folder, sizes(folder.path, 5, 80), Proofs(None), 0)
    assert [(one.rows_max, one.tokens_max) for one in made] == [(5, 80)] * 2
    assert [one.session for one in made] == [None, None]


def test_a_large_model_is_tried_with_few_tokens(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "LARGE_BYTES", 1)
    real, computed = selftest.generate, []

    def generate(decoder: Any, prompts: Any, count: int, *args: Any, **more: Any) -> list[Row]:
        # The last token of an answer is never fed.
        computed.append(sum(len(prompt) + count - 1 for prompt in prompts))
        return real(decoder, prompts, count, *args, **more)

    monkeypatch.setattr(selftest, "generate", generate)
    assert proof_of(folder, sizes(folder.path), Proofs(None), 60).proven == "batch-invariant"
    assert sum(computed) == 30


@pytest.mark.parametrize(
    ("differs", "proven"), [("again", "none"), ("batch", "run"), ("nothing", "batch-invariant")]
)
def test_the_class_is_what_was_equal(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, differs: str, proven: str
) -> None:
    real, calls = selftest.generate, []

    def generate(decoder: Any, prompts: Any, *args: Any, **more: Any) -> list[Row]:
        rows = real(decoder, prompts, *args, **more)
        if len(prompts) > 1:
            calls.append(prompts)
            if differs == "batch" or (differs == "again" and len(calls) == 2):
                rows[0].logits[1, 1] += np.float32(1e-3)
        return rows

    monkeypatch.setattr(selftest, "generate", generate)
    assert proof_of(folder, sizes(folder.path), Proofs(None), 60).proven == proven
    assert proven in CLASSES


def test_what_was_proven_is_not_proven_again_until_something_is_another(
    tmp_path: Path, folder: ModelFolder, made: list[Any]
) -> None:
    model, proofs = sizes(folder.path), Proofs(tmp_path / "cache/proofs")
    first = proof_of(folder, model, proofs, 60)
    assert proof_of(folder, model, Proofs(tmp_path / "cache/proofs"), 60) == first
    assert len(made) == 2
    proof_of(folder, replace(model, rows_max=3), proofs, 60)
    assert len(made) == 4
    assert [path.suffix for path in (tmp_path / "cache/proofs").iterdir()] == [".json"] * 2


def test_a_provider_that_came_or_went_since_is_tried_anew(
    tmp_path: Path, fp32: Path, made: list[Any]
) -> None:
    model = sizes(fp32)
    opened = ModelFolder.open(fp32)
    Proofs(tmp_path / "proofs").keep(subject(opened.identity(), model), Proof("run", ("cuda",)))
    opened.close()
    loaded = LoadedModel(model, "2000-01-01T00:00:00Z", cache=tmp_path)
    loaded.decoder.close()
    assert (loaded.proven, len(made)) == ("batch-invariant", 2)


def test_a_run_says_what_was_proven_and_keeps_it_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fleet = fleets.fleet(tmp_path, fleets.TWO_MODELS)
    job = Job(str(fleet), str(tmp_path), str(fleets.items(tmp_path, 2)))
    done = launch(replace(job, run_dir=str(tmp_path / "run")))
    assert done["classes"] == {"llama": "batch-invariant", "qwen": "batch-invariant"}
    manifest = json.loads((tmp_path / "run/manifest.json").read_bytes())
    assert manifest["environment"]["classes"] == done["classes"]
    kept = sorted((tmp_path / "cache/lockstep/proofs").iterdir())
    stamps = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 2
    again = launch(replace(job, run_dir=str(tmp_path / "again")))
    assert (again["classes"], again["digest"]) == (done["classes"], done["digest"])
    assert [path.stat().st_mtime_ns for path in kept] == stamps


def test_the_class_is_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    fleet = fleets.fleet(tmp_path, fleets.TWO_MODELS)
    job = Job(str(fleet), str(tmp_path), str(fleets.items(tmp_path, 2)))
    launch(replace(job, run_dir=str(tmp_path / "run")))
    identity = json.loads((tmp_path / "run/manifest.json").read_bytes())["identity"]
    assert "class" not in json.dumps(identity)


# -- proofs --------------------------------------------------------------------------------------


def test_a_proof_is_found_by_its_whole_subject(tmp_path: Path, fp32: Path) -> None:
    proofs, model = Proofs(tmp_path / "proofs"), sizes(fp32)
    key = subject(FILES, model)
    assert proofs.find(key) is None
    proofs.keep(key, Proof("run", ("cuda", "cpu")))
    assert Proofs(tmp_path / "proofs").find(key) == Proof("run", ("cuda", "cpu"))
    others = [
        subject({"model.onnx": "01"}, model),
        subject(FILES, replace(model, providers=("cuda", "cpu"))),
        subject(FILES, replace(model, intra_op_threads=2)),
        subject(FILES, replace(model, rows_max=9)),
        subject(FILES, replace(model, tokens_max=9)),
        {**key, "cpu": ["model name : another"]},
        {**key, "versions": {}},
        {**key, "devices": ["Model: another"]},
    ]
    assert all(proofs.find(other) is None for other in others)


def test_where_and_what_it_is_called_is_no_part_of_the_subject(fp32: Path) -> None:
    model = sizes(fp32)
    same = replace(model, name="other", path="elsewhere", period=7, prefill_tokens_per_step=99)
    assert subject(FILES, model) == subject(FILES, same)
    assert json.dumps(subject(FILES, model))


def test_proofs_are_this_users_alone(tmp_path: Path) -> None:
    place = tmp_path / "proofs"
    proofs, key = Proofs(place), {"a": 1}
    proofs.keep(key, Proof("run", ("cpu",)))
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o777)  # Anybody may have put it there.
    assert proofs.find(key) is None
    proofs.keep({"b": 2}, Proof("run", ("cpu",)))
    assert len(list(place.iterdir())) == 1


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"proven": "run"}', b"\xff", b'{"got": 3}'])
def test_a_damaged_proof_is_as_good_as_none(tmp_path: Path, data: bytes) -> None:
    place = tmp_path / "proofs"
    proofs, key = Proofs(place), {"a": 1}
    proofs.keep(key, Proof("run", ("cpu",)))
    (path,) = place.iterdir()
    path.write_bytes(data)
    assert proofs.find(key) is None


def test_a_class_that_nobody_knows_is_proven_anew(tmp_path: Path, folder: ModelFolder) -> None:
    model, proofs = sizes(folder.path), Proofs(tmp_path / "proofs")
    proofs.keep(subject(folder.identity(), model), Proof("perfect", ("cpu",)))
    assert proof_of(folder, model, proofs, 60).proven == "batch-invariant"


def test_a_folder_that_cannot_be_made_costs_the_proof_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    proofs = Proofs(tmp_path / "file/proofs")
    proofs.keep({"a": 1}, Proof("run", ("cpu",)))
    assert proofs.find({"a": 1}) is None


def test_the_devices_are_the_kernels_names_of_them(tmp_path: Path) -> None:
    gpu = tmp_path / "gpus/0000:01:00.0"
    gpu.mkdir(parents=True)
    (gpu / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   12\n")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX 575.1\nGCC version: 12\n")
    assert devices(tmp_path) == ["NVRM version: NVIDIA UNIX 575.1", "Model: \t\t NVIDIA H200"]
    assert devices(tmp_path / "none") == []


def test_the_cache_lies_where_the_person_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_CACHE_HOME", "/else/where")
    assert cache_folder() == "/else/where/lockstep"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == "/home/ann/.cache/lockstep"
    monkeypatch.delenv("HOME")
    assert cache_folder() == ""


def test_prompts_are_the_same_everywhere() -> None:
    prompts = prompts_of(512, PROMPT_LENGTHS)
    assert [len(prompt) for prompt in prompts] == [1, 5, 17, 40]
    assert prompts[1] == (401, 33, 153, 334, 147) and max(map(max, prompts)) < 512
