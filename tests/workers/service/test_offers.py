"""Offers: what a run serves, by its manifest, and when its fingerprint is another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep.workers.service.offers import offers

RUN = Path(__file__).parents[2] / "data" / "journals" / "format2-flags7-model"


def changed(folder: Path, change: Callable[[Any], None]) -> Path:
    """A run whose manifest says something else."""
    manifest = json.loads((RUN / "manifest.json").read_text())
    change(manifest)
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_run_offers_its_fleet_and_its_models() -> None:
    found = offers(RUN, {})
    manifest = json.loads((RUN / "manifest.json").read_text())
    (model,) = found["models"]
    assert found["fleet"] == manifest["identity"]["fleet"]["name"]
    assert (model["kind"], model["file"]) == ("decoder", "model.onnx")
    assert model["path"] == manifest["environment"]["models"][model["name"]]
    assert model["fingerprint"].startswith("fp_") and len(model["fingerprint"]) == 19


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["identity"]["fleet"]["models"][0]["path"].update({"model.onnx": "0"}),
        lambda m: m["identity"]["fleet"]["models"][0].update(rows_max=63),
        lambda m: m["environment"]["providers"][0].update(got=["cuda"]),
        lambda m: m["environment"]["versions"].update(onnxruntime="0"),
        lambda m: m["environment"]["cpu"].update(model="another"),
    ],
)
def test_whatever_decides_bits_is_in_the_fingerprint(tmp_path: Path, change: Any) -> None:
    (model,) = offers(RUN, {})["models"]
    (other,) = offers(changed(tmp_path / "run", change), {})["models"]
    assert model["fingerprint"] != other["fingerprint"]


def test_a_name_or_a_place_is_not_in_it(tmp_path: Path) -> None:
    def move(manifest: Any) -> None:
        model = manifest["identity"]["fleet"]["models"][0]
        environment = manifest["environment"]
        environment["models"] = {"other": "/elsewhere"}
        environment["classes"] = {"other": environment["classes"][model["name"]]}
        model["name"] = "other"

    (model,) = offers(RUN, {})["models"]
    (other,) = offers(changed(tmp_path / "run", move), {})["models"]
    assert other["path"] == "/elsewhere" and model["fingerprint"] == other["fingerprint"]


def test_a_model_that_went_on_elsewhere_says_so() -> None:
    (model,) = offers(RUN, {})["models"]
    (moved,) = offers(RUN, {model["name"]: "other"})["models"]
    assert moved["provider"] == ["other"] and moved["fingerprint"] != model["fingerprint"]


def test_a_run_without_a_manifest_offers_nothing_until_there_is_one(tmp_path: Path) -> None:
    assert offers(tmp_path / "run", {}) == {}
    assert offers(changed(tmp_path / "run", lambda _: None), {})["models"]
