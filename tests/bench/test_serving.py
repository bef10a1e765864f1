"""What requests waited for, as vLLM's benchmark counts it."""

import pytest

from lockstep.bench.serving import TTFT_MS_MAX, Served, figures

MS = 1_000_000


def test_a_request_has_the_times_of_its_tokens() -> None:
    served = Served.of([5 * MS, [15 * MS, 18 * MS, 20 * MS, 30 * MS], 7, 3])
    assert served.ttft_ms == 10
    assert served.tpot_ms == 5
    assert served.itl_ms == [3, 2, 10]
    assert served.good


def test_a_request_of_one_token_has_no_time_between_tokens() -> None:
    served = Served(0, [2 * MS], 1, 0)
    assert (served.ttft_ms, served.tpot_ms, served.itl_ms) == (2, 0, [])
    one = figures([served, Served(0, [MS, 3 * MS], 1, 0)], 1.0)
    assert one["mean_tpot_ms"] == (2.0, "ms")


def test_figures_are_over_all_requests() -> None:
    late = round(TTFT_MS_MAX * 2) * MS
    served = [
        Served(0, [10 * MS, 20 * MS, 30 * MS], 100, 90),
        Served(0, [30 * MS, 50 * MS], 100, 60),
        Served(0, [late, late + 10 * MS], 50, 0),
    ]
    found = {name: value for name, (value, _) in figures(served, 2.0).items()}
    assert (found["completed"], found["request_throughput"]) == (3, 1.5)
    assert found["request_goodput"] == 1.0  # The late one is none.
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (250, 7)
    assert (found["output_throughput"], found["total_token_throughput"]) == (3.5, 128.5)
    assert found["prefix_hit_rate"] == 0.6
    assert (found["median_ttft_ms"], found["median_tpot_ms"]) == (30, 10)
    assert found["mean_itl_ms"] == pytest.approx(12.5)
    assert found["p99_itl_ms"] == pytest.approx(10 + (20 - 10) * 0.97)  # Interpolated.
