"""Whether steps are captured: what the fleet says, and what the provider can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lockstep.engine.errors import ProviderMissing, UsageError
from lockstep.engine.fleet import Model
from lockstep.workers.inference.capturing import capturing

MODEL = Model("tiny", "", ("cuda", "cpu"), "", 1, 2, 32, 16, 1)


def made(decoder: Any, path: Path, wanted: str, **more: Any) -> tuple[Any, list[bool]]:
    """The decoder of a model, and how each one was asked for."""
    asked: list[bool] = []

    def make(graphs: bool) -> Any:
        asked.append(graphs)
        return decoder(path, graphs=graphs, **more)

    return capturing(replace(MODEL, cuda_graphs=wanted), make), asked


def test_off_asks_for_none(fp32: Path, decoder: Any) -> None:
    found, asked = made(decoder, fp32, "off")
    assert asked == [False] and "cuda_graphs" not in found.report.to_json()


def test_auto_does_without_where_nothing_captures(fp32: Path, decoder: Any) -> None:
    found, asked = made(decoder, fp32, "auto")
    assert asked == [True, False] and not found.report.graphs


def test_auto_does_without_where_the_model_cannot_be_captured(data: Path, decoder: Any) -> None:
    found, asked = made(decoder, data / "optimum-micro", "auto")
    assert asked == [True, False] and not found.report.graphs


def test_auto_does_not_ask_where_the_fleet_names_no_such_provider(fp32: Path, decoder: Any) -> None:
    asked: list[bool] = []
    model = replace(MODEL, providers=("cpu",), cuda_graphs="auto")
    capturing(model, lambda graphs: asked.append(graphs) or decoder(fp32))
    assert asked == [False]


def test_on_is_refused_with_what_there_is_and_what_to_do(
    fp32: Path, data: Path, decoder: Any
) -> None:
    with pytest.raises(ProviderMissing, match=r'"on", but the model would run on cpu.*set cuda'):
        made(decoder, fp32, "on")
    with pytest.raises(UsageError, match="need a model on the fixed slab"):
        made(decoder, data / "optimum-micro", "on")


def test_what_captures_says_so_in_its_report(
    fp32: Path, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockstep.workers.inference.capturing.CAPTURES", "cpu")
    asked: list[bool] = []
    model = replace(MODEL, providers=("cpu",), cuda_graphs="on")
    found = capturing(model, lambda graphs: asked.append(graphs) or decoder(fp32, graphs=graphs))
    assert asked == [True] and found.report.to_json()["cuda_graphs"] is True
