"""A trace of conversations served by Lockstep and by whoever else is there."""

import pytest

from lockstep.bench import models
from lockstep.bench.conversations import trace
from lockstep.bench.groups import serve
from lockstep.bench.peers import Environment, Peer
from lockstep.bench.report import Report
from lockstep.engine.errors import UsageError

TRACE = trace(3, 2, 20)
ABSENT = Peer("hf_rounds", Environment("none-of-the-kind", ("none==1",), 1))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small model in place of the large one."""
    monkeypatch.setattr(serve, "MODEL", models.small)
    monkeypatch.setattr(serve, "SIZES", models.SMALL)


@pytest.mark.usefixtures("small_model", "small")
def test_the_group_has_its_figures_and_names_the_peers_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "PEERS", {"hf": ABSENT})
    report = serve.measure(TRACE, 2, lambda _: None)
    assert report.skipped == [("hf", "none==1 is not there", "lockstep bench setup serve")]
    assert report.ratios == {}
    figures = {name: value for name, (value, _) in report.results.items()}
    assert figures["completed"] == 6
    assert figures["total_output_tokens"] == TRACE.tokens_out
    assert 0.4 < figures["prefix_hit_rate"] < 1
    assert 1 <= figures["batch_per_step"] <= 3
    assert figures["output_throughput"] > 0 <= figures["stall"]
    assert {"median_ttft_ms", "p99_itl_ms", "mean_tpot_ms", "request_goodput"} <= figures.keys()


@pytest.mark.usefixtures("small_model", "small")
def test_who_takes_long_without_a_batch_is_left_out_when_it_has_to_be_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = Peer("hf_generate", Environment("none-of-the-kind", (), 0))
    monkeypatch.setattr(serve, "PEERS", {"hf_generate": there})
    report = serve.measure(trace(1, 1, 10), 1, lambda _: None, quick=True)
    assert report.skipped == [("hf_generate", "--quick", "lockstep bench serve")]


def test_who_says_fewer_tokens_than_the_trace_has_is_no_figure() -> None:
    with pytest.raises(UsageError, match=f"hf_: 2 tokens, the trace has {TRACE.tokens_out}"):
        serve._book(Report("serve", {}), "hf_", [[0, [1, 2], 5, 0]], 1.0, TRACE)


@pytest.mark.peers
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", list(serve.PEERS))
def test_a_peer_serves_the_whole_trace(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not serve.PEERS[name].environment.ready():
        pytest.skip("lockstep bench setup serve")
    monkeypatch.setattr(serve, "PEERS", {name: serve.PEERS[name]})
    report = serve.measure(TRACE, 1, lambda _: None)
    assert report.ratios[name].median > 0
    assert report.results[f"{name}_output_throughput"][0] > 0
    if name in serve.ALONE:
        return
    assert report.results[f"{name}_completed"] == (6, "requests")
    assert report.results[f"{name}_total_output_tokens"][0] == TRACE.tokens_out
    asked = report.results["total_input_tokens"]
    assert report.results[f"{name}_total_input_tokens"] == asked


def test_the_fleet_has_room_for_every_conversation() -> None:
    text = serve.fleet(TRACE, "model", 2)
    assert "rows_max = 3" in text and f"tokens_max = {TRACE.tokens_max}" in text
    assert f'shared = "{TRACE.shared}"' in text
