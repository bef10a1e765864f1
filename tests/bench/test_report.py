"""A report has the one shape that people script against."""

import json
import platform
from pathlib import Path

from lockstep.bench import machine
from lockstep.bench.pairs import Ratio
from lockstep.bench.report import Report, rounded


def report() -> Report:
    made = Report("agents", {"cpu": "none"})
    made.results["turn_p50_us"] = (123.456, "us")
    made.ratios["autogen_turn"] = Ratio(2.34567, 2.0, 3.0)
    made.skipped.append(("ray_turn", "it is not there", "lockstep bench setup agents"))
    return made


def test_json_keeps_absolutes_and_ratios_apart() -> None:
    value = json.loads(json.dumps(report().to_json()))
    assert value["group"] == "agents" and value["machine"] == {"cpu": "none"}
    assert value["results"] == {"turn_p50_us": {"value": 123.5, "unit": "us"}}
    assert value["ratios"] == {"autogen_turn": {"median": 2.346, "low": 2.0, "high": 3.0}}
    assert value["skipped"] == [
        {"name": "ray_turn", "reason": "it is not there", "get": "lockstep bench setup agents"}
    ]


def test_the_table_names_everything_once() -> None:
    assert [name for name, _, _ in report().rows()] == ["autogen_turn", "turn_p50_us", "ray_turn"]


def test_figures_have_four_digits() -> None:
    assert [rounded(x) for x in (0.0, 123456.0, 0.00123456)] == [0.0, 123500.0, 0.001235]


def test_the_machine_is_described_with_what_figures_depend_on() -> None:
    found = machine.describe()
    assert found["cores"] >= 1 and found["memory_gib"] > 0 and found["packages"]["numpy"]


def test_a_cpu_without_a_name_is_called_by_its_architecture(tmp_path: Path) -> None:
    assert machine.cpu_model(tmp_path / "none") == platform.machine()
