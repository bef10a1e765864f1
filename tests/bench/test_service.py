"""`bench service`: both contestants, small."""

from pathlib import Path

from lockstep.bench.groups import service
from lockstep.bench.report import Report
from lockstep.engine.fleet_file import parse


def test_the_fleet_has_a_row_for_every_agent() -> None:
    fleet = parse(service.fleet(Path("model")).encode(), "fleet.toml")
    assert len(fleet.agents) == fleet.models[0].rows_max == fleet.schedule.items_in_flight_max
    assert fleet.models[0].tokens_max >= service.PROMPT_BYTES + service.TOKENS


def test_a_service_and_a_plain_run_answer_the_same_items() -> None:
    report = Report("service", {})
    service._latency(report, 6)
    service._http_latency(report, 6)
    assert all(value > 0 for name, (value, _) in report.results.items() if "added" not in name)
    assert report.results["http_p50_ms"][0] > report.results["http_added_p50_ms"][0]
