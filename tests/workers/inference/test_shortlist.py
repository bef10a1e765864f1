"""Candidates in place of rows: the same tokens, and the whole row wherever they are not enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fleets
import numpy as np
import pytest
from rings import SPEC, requests, serve

from lockstep.engine.errors import ModelRejected, UsageError
from lockstep.engine.plan import Chunk, ModelPlan
from lockstep.workers.inference import provider
from lockstep.workers.inference.cut import in_order
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.loaded import LoadedModel
from lockstep.workers.inference.sampler import draw
from lockstep.workers.inference.sampling import Sampling
from lockstep.workers.inference.shortlist import Row, Shortlist, enough
from lockstep.workers.job import Job
from lockstep.workers.launch import launch
from lockstep.workers.recorded import recorded
from lockstep.workers.verification import verify

VOCAB, COUNT = 500, 64
EXTRAS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.9, "top_k": 40},
    {"temperature": 1.3, "top_k": COUNT, "top_p": 0.9, "min_p": 0.01, "n": 2},
    {"temperature": 1.3, "top_k": COUNT + 1},
    {"temperature": 0.9, "top_k": 20, "logprobs": 2},
    {"top_k": 20, "repetition_penalty": 1.3},
    {"top_k": 20, "min_tokens": 3},
)


def cut(row: Any, count: int = COUNT) -> Shortlist:
    ids = in_order(row, np.arange(row.size))[:count]
    return Shortlist(row[ids], ids, bool(np.isfinite(row).all()))


@pytest.mark.parametrize("seed", range(20))
def test_a_token_is_drawn_from_the_largest_as_from_the_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    row = rng.normal(0, 4, VOCAB).astype(np.float32)
    if seed % 2:
        row = np.round(row)  # Many equals, at the border as well.
    for top_k in (1, 7, COUNT):
        sampling = Sampling(
            temperature=float(rng.uniform(0.1, 3)),
            top_k=top_k,
            top_p=float(rng.choice([1.0, 0.9, 0.3])),
            min_p=float(rng.choice([0.0, 0.02])),
        )
        assert 0 < enough(sampling, 0, ends=True) <= COUNT
        for uniform in (0.0, 0.3, 0.77, 1 - 2**-53):
            uniforms = (uniform, 0.0).__getitem__  # What is proposed first is accepted.
            found = draw(cut(row).spread(VOCAB), sampling, uniforms)
            assert found == draw(row, sampling, uniforms)
    assert cut(row).likeliest == int(np.argmax(row))


@pytest.mark.parametrize(
    ("sampling", "wanted"),
    [
        (Sampling(), 1),
        (Sampling(top_p=0.5), 1),  # Greedy all the same.
        (Sampling(temperature=1, top_k=9), 9),
        (Sampling(temperature=1), 0),
        (Sampling(temperature=1, min_p=0.1), 0),
        (Sampling(logprobs=0), 0),
        (Sampling(presence_penalty=0.1), 0),
        (Sampling(min_tokens=3), 0),
        (Sampling(min_tokens=2), 1),  # That many are there.
    ],
)
def test_how_many_are_enough(sampling: Sampling, wanted: int) -> None:
    assert enough(sampling, 2, ends=True) == wanted


def test_without_an_end_that_is_forbidden_they_are_enough_at_once() -> None:
    assert enough(Sampling(min_tokens=3), 0, ends=False) == 1


Load = Callable[..., LoadedModel]


@pytest.fixture
def load(any_model: Path) -> Iterator[Load]:
    made: list[LoadedModel] = []

    def one(**more: Any) -> LoadedModel:
        settings = replace(SPEC.models[0], path=str(any_model), **more)
        made.append(LoadedModel(settings, SPEC.frozen_date))
        return made[-1]

    yield one
    for model in made:
        model.decoder.close()


def test_every_step_of_the_record_is_the_same_with_them(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(3, EXTRAS)
    kinds: list[type] = []
    rows = Decoder.rows

    def counted(self: Decoder, *given: Any, **more: Any) -> list[tuple[int, Row]]:
        found = rows(self, *given, **more)
        kinds.extend(type(row) for _, row in found)
        return found

    monkeypatch.setattr(Decoder, "rows", counted)
    whole = serve(load(), 10_000, asked=asked).steps
    assert set(kinds) == {np.ndarray}
    kinds.clear()
    assert serve(load(candidates=COUNT), 10_000, asked=asked).steps == whole
    # Fetched whole: a row whose request asks for it, and who shares the run with it.
    assert kinds.count(Shortlist) > 20 and kinds.count(np.ndarray) > 20


def test_a_row_with_a_nan_is_not_sound_whatever_its_largest_are(fp32: Path, decoder: Any) -> None:
    made = decoder(fp32, candidates=3)
    good = ModelPlan(0, chunks=(Chunk(0, 0, 0, (5, 6, 7), True),), lengths=())
    ((_, row),) = made.rows(good, short=[0])
    assert row.sound and row.values.shape == (3,)
    made.slab.array[:] = np.nan
    later = ModelPlan(0, chunks=(Chunk(0, 0, 4, (5, 6), True),), lengths=())
    ((_, row),) = made.rows(later, short=[0])
    assert not row.sound


def test_a_model_in_which_they_cannot_be_cut_is_refused(
    fp32: Path, decoder: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="candidates = 100000, expected 0 to 512"):
        decoder(fp32, candidates=100_000)
    growing = next(path for path in data.glob("optimum-*") if (path / "model.onnx").exists())
    with pytest.raises(UsageError, match="need a model on the fixed slab"):
        decoder(growing, candidates=5)
    monkeypatch.setattr(provider, "with_candidates", lambda *_: None)
    with pytest.raises(ModelRejected, match="set candidates = 0"):
        decoder(fp32, candidates=5)


def test_a_run_says_the_same_with_the_key_which_is_part_of_what_it_is(tmp_path: Path) -> None:
    found = []
    for name, key in (("off", ""), ("on", "candidates = 40\n")):
        (folder := tmp_path / name).mkdir()
        text = fleets.CHAIN.replace(", temperature = 0.9", "")
        made = fleets.fleet(folder, text.replace("rows_max", f"{key}rows_max", 1))
        job = Job(str(made), str(folder), str(fleets.items(folder, 6)), run_dir=str(folder / "run"))
        found.append(recorded(launch(job)["run"]))
    assert found[0].history == found[1].history and found[0].digest != found[1].digest
    assert "candidates" not in found[0].identity["fleet"]["models"][0]
    assert found[1].identity["fleet"]["models"][0]["candidates"] == 40
    assert verify(found[1].path).equal
