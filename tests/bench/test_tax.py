"""The table of `bench tax`: fleets that parse, and the two ratios made of its cells."""

import sys
from pathlib import Path

import pytest

from lockstep.bench import models
from lockstep.bench.groups import tax
from lockstep.bench.pairs import Ratio
from lockstep.bench.report import Report
from lockstep.engine.errors import UsageError
from lockstep.engine.fleet_file import parse


@pytest.mark.parametrize("cell", tax.CELLS, ids=lambda cell: cell.name)
def test_every_cell_is_a_fleet_with_rows_to_spare(cell: tax.Cell) -> None:
    for order in ("strict", "arrival"):
        fleet = parse(cell.fleet(Path("model"), order).encode(), "fleet.toml")
        assert fleet.schedule.order == order
        assert len(fleet.agents) == cell.agents <= fleet.models[0].rows_max
        assert fleet.models[0].tokens_max >= cell.prompt + cell.tokens
        assert all(group.config["requests"] <= 63 for group in fleet.groups)


def test_the_table_is_as_wide_as_it_says() -> None:
    assert len({cell.name for cell in tax.CELLS}) == len(tax.CELLS) == 12
    assert {cell.agents for cell in tax.CELLS} >= {5, 64}
    assert {cell.tokens for cell in tax.CELLS} >= {5, 64}
    assert min(cell.think_ms for cell in tax.CELLS) == 0.2
    assert max(cell.think_ms for cell in tax.CELLS) == 20
    assert max(cell.prompt for cell in tax.CELLS) == 400
    assert any(cell.slow_ms for cell in tax.CELLS) and any(cell.tail for cell in tax.CELLS)
    assert {cell.name for cell in tax.CELLS} > set(tax.CURVE_CELLS)


def test_strict_settings_reach_the_strict_fleet_only() -> None:
    text = tax.CELLS[0].fleet(Path("model"), "strict", fuel_per_step=7, lookahead=3)
    schedule = parse(text.encode(), "fleet.toml").schedule
    assert (schedule.fuel_per_step, schedule.lookahead) == (7, 3)


def test_the_ratios_are_the_median_of_the_cells_and_the_worst_cell() -> None:
    report = Report("tax", {})
    cells = {f"c{n}": Ratio(1 - n / 100, 0.5, 1.5) for n in range(7)}
    tax.book(report, cells)
    assert report.ratios["strict_over_arrival"].median == pytest.approx(0.97)
    assert report.ratios["strict_over_arrival_worst"] == cells["c6"]
    assert report.ratios["strict_over_arrival_c2"] == cells["c2"]


def test_few_pairs_give_their_range() -> None:
    assert tax.paired([1.0, 3.0, 2.0]) == Ratio(2.0, 1.0, 3.0)
    assert tax.paired([float(n) for n in range(1, 10)]) == Ratio(5.0, 2.0, 8.0)


def test_a_cell_is_measured_in_both_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tax, "REQUESTS_MAX", 3)
    report = Report("tax", {})
    told: list[str] = []
    cells = {"one": tax._cell(report, tax.Cell(2, 3, 0.01), models.small(told.append), 1)}
    assert cells["one"].low == cells["one"].high > 0
    assert {n: (v > 0, u) for n, (v, u) in report.results.items()} == {
        "a2_t3_think001_strict": (True, "tokens/s"),
        "a2_t3_think001_arrival": (True, "tokens/s"),
    }
    models.small(told.append)
    assert len(told) == 1  # It was there.


def test_the_curves_are_drawn_over_quanta_and_lookaheads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real thing takes a quarter of an hour: here a run costs nothing and says its settings.
    def throughput(text: str) -> float:
        schedule = parse(text.encode(), "fleet.toml").schedule
        return 99.0 - schedule.lookahead if schedule.order == "strict" else 100.0

    monkeypatch.setattr(tax, "throughput", throughput)
    monkeypatch.setattr(models, "small", lambda tell: Path("model"))
    told: list[str] = []
    report = tax.run(True, told.append, tmp_path / "tax.svg")
    assert report.ratios["strict_over_arrival"] == (0.98, 0.98, 0.98)
    assert report.ratios["strict_over_arrival_worst"].median == 0.98
    picture = (tmp_path / "tax.svg").read_text()
    assert "fuel_per_step, millions" in picture and "lookahead, steps" in picture
    assert all(cell in picture for cell in tax.CURVE_CELLS)
    assert len(told) > len(tax.CELLS)


def test_a_model_that_cannot_be_built_is_told_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"pip install 'lockstep-runtime\[bench\]'"):
        models.small(lambda text: None)
