"""Metrics: whatever is seen, what Prometheus reads of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from lockstep.workers.http.metrics import CONTENT_TYPE, Observations, exposition

STATUS: dict[str, Any] = {
    "state": "ready",
    "uptime_s": 12.5,
    "waiting": 3,
    "waiting_max": 256,
    "accepted": 40,
    "answered": 37,
    "runs": [{"state": "live"}, {"state": "ended"}, {"state": "ended"}],
    "runs_begun": 2,
    "done": {"tokens_in": 100, "tokens": 50, "steps": 20, "turns": 30, "restarts": 1,
             "supervisor_restarts": 4},
    "http": {"restarts": 5},
    "offers": {"models": [{"name": "big", "provider": ["cuda", "cpu"], "class": "strict",
                           "fingerprint": "fp_1"}]},
    "load": {"rows": 4, "rows_max": 16, "requests_waiting": 2, "tokens_per_s": 70,
             "stall_s": {"solver": 1.5, "judge": 0.0}},
}  # fmt: skip


def read(status: dict[str, Any], observed: Observations) -> dict[str, float]:
    """Samples by name and labels, as the parser of prometheus_client has them."""
    text = exposition(status, observed).decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found and sample.name.startswith("lockstep_")
            found[key] = sample.value
    return found


def test_the_status_of_a_service_is_told_by_the_names_of_the_field() -> None:
    found = read(STATUS, Observations())
    expected = {
        "lockstep_up": 1, "lockstep_ready": 1, "lockstep_uptime_seconds": 12.5,
        "lockstep_items_waiting": 3, "lockstep_items_waiting_max": 256,
        "lockstep_items_accepted_total": 40, "lockstep_items_answered_total": 37,
        "lockstep_runs{state=live}": 1, "lockstep_runs{state=ended}": 2,
        "lockstep_runs{state=stuck}": 0, "lockstep_runs_begun_total": 2,
        "lockstep_prompt_tokens_total": 100, "lockstep_generation_tokens_total": 50,
        "lockstep_steps_total": 20, "lockstep_turns_total": 30,
        "lockstep_restarts_total{process=child}": 1,
        "lockstep_restarts_total{process=supervisor}": 4,
        "lockstep_restarts_total{process=front}": 5,
        "lockstep_model_info{class=strict,fingerprint=fp_1,model=big,provider=cuda}": 1,
        "lockstep_num_requests_running": 4, "lockstep_num_requests_waiting": 2,
        "lockstep_kv_slots": 16, "lockstep_kv_slots_used": 4, "lockstep_kv_cache_usage_perc": 0.25,
        "lockstep_generation_tokens_per_second": 70,
        "lockstep_agent_stall_seconds_total{agent=solver}": 1.5,
        "lockstep_agent_stall_seconds_total{agent=judge}": 0,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert any(key.startswith("lockstep_build_info{compiled=") for key in found)


def test_a_service_that_does_not_answer_or_has_no_run_is_told_as_that() -> None:
    found = read({}, Observations())
    assert found["lockstep_up"] == 0 and "lockstep_ready" not in found
    recovering = {**STATUS, "state": "recovering", "offers": {}, "load": {}}
    found = read(recovering, Observations())
    assert found["lockstep_ready"] == 0 and "lockstep_num_requests_running" not in found
    no_model = {**STATUS, "load": {**STATUS["load"], "rows": 0, "rows_max": 0}}
    assert read(no_model, Observations())["lockstep_kv_cache_usage_perc"] == 0


def test_calls_are_counted_by_what_became_of_them() -> None:
    seen = Observations()
    for outcome in ("ok", "ok", "busy", "vanished"):
        seen.asked("chat", "big")
        seen.done("chat", "big", outcome, 1.0)
    seen.asked("chat", "big")
    seen.turned_away(401)
    found = read({}, seen)
    assert found["lockstep_requests_total{model=big,outcome=ok,route=chat}"] == 2
    assert found["lockstep_requests_total{model=big,outcome=busy,route=chat}"] == 1
    assert found["lockstep_requests_open{model=big,route=chat}"] == 1
    assert found["lockstep_http_errors_total{status=401}"] == 1
    # How soon somebody was refused is no latency of an answer.
    assert found["lockstep_e2e_request_latency_seconds_count{model=big}"] == 2


def test_latencies_fall_into_the_buckets_of_their_size() -> None:
    seen = Observations()
    seen.first_token("chat", "big", 0.02)  # A bound belongs to the bucket that it ends.
    seen.first_token("chat", "big", 1000.0)
    seen.done("chat", "big", "ok", 2.0, prompt_tokens=7, cached_tokens=3, completion_tokens=11,
              first_s=1.0)  # fmt: skip
    seen.done("chat", "big", "ok", 2.0, completion_tokens=1, first_s=1.0)  # Nothing between.
    found = read({}, seen)
    first = "lockstep_time_to_first_token_seconds"
    assert found[f"{first}_bucket{{le=0.01,model=big}}"] == 0
    assert found[f"{first}_bucket{{le=0.02,model=big}}"] == 1
    assert found[f"{first}_bucket{{le=80.0,model=big}}"] == 1
    assert (
        found[f"{first}_bucket{{le=+Inf,model=big}}"] == found[f"{first}_count{{model=big}}"] == 2
    )
    assert found[f"{first}_sum{{model=big}}"] == 1000.02
    each = "lockstep_request_time_per_output_token_seconds"
    assert found[f"{each}_count{{model=big}}"] == 1
    assert found[f"{each}_sum{{model=big}}"] == pytest.approx(0.1)
    assert found["lockstep_request_cached_tokens_total{model=big}"] == 3
    assert found["lockstep_request_prompt_tokens_sum{model=big}"] == 7


def test_every_one_of_them_is_documented() -> None:
    seen = Observations()
    seen.asked("chat", "big")
    seen.first_token("chat", "big", 0.1)
    seen.done("chat", "big", "ok", 1.0, completion_tokens=9, first_s=0.1)
    seen.turned_away(401)
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    table = text[text.index("## Metrics") : text.index("## Sizing")]
    told = {match[1]: match[2] for match in re.finditer(r"`([a-z0-9_]+)(?:\{(.+?)\})?`", table)}
    for family in text_string_to_metric_families(exposition(STATUS, seen).decode()):
        labels = ",".join(family.samples[0].labels.keys() - {"le"})
        name = family.name.removeprefix("lockstep_") + "_total" * (family.type == "counter")
        assert name in told and sorted((told[name] or "").split(",")) == sorted(labels.split(","))


def test_nothing_of_it_is_kept_in_the_process() -> None:
    before = {metric.name for metric in REGISTRY.collect()}
    one, other = Observations(), Observations()
    one.asked("chat", "big")
    one.done("chat", "big", "ok", 1.0)
    assert not any("requests_total" in key for key in read({}, other))
    assert {metric.name for metric in REGISTRY.collect()} == before
    assert "version=0.0.4" in CONTENT_TYPE and b"_created" not in exposition(STATUS, one)
