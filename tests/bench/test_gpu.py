"""What docs/gpu.md asks of a GPU, tried on the CPU: everything but the device."""

from pathlib import Path

import pytest

from lockstep.bench.groups import gpu
from lockstep.engine.errors import UsageError


def test_it_runs_without_a_gpu_and_says_what_is_equal(small_model: Path) -> None:
    said: list[str] = []
    report = gpu.run(True, said.append, "cpu", [small_model])
    name, results = small_model.name, report.results
    equal = [key for key, (_, unit) in results.items() if unit.startswith("(1:")]
    assert len(equal) == 6 and all(results[key][0] == 1 for key in equal)
    for kind in ("", "_graphs", "_candidates"):
        for batch in gpu.BATCHES_QUICK:
            assert results[f"{name}{kind}_b{batch}"][1] == "tokens/s"
            assert results[f"{name}{kind}_b{batch}_share"][0] > 0
    assert report.notes[f"{name} provider"] == "cpu; keys and values on cpu"
    assert "gpu" in report.to_json()["machine"] and said


def test_a_provider_that_is_not_there_is_named(small_model: Path) -> None:
    with pytest.raises(UsageError, match=r"on rocm: .*require = 'rocm'"):
        gpu.run(True, lambda _: None, "rocm", [small_model])
