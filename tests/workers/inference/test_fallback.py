"""A run never goes on, in silence, on other providers than it was computed on."""

from __future__ import annotations

from pathlib import Path

import fleets
import pytest
from living import Living, kill

from lockstep.engine.errors import ProviderMissing
from lockstep.engine.fleet import Model
from lockstep.workers import resume
from lockstep.workers.inference.loaded import LoadedModel
from lockstep.workers.job import Job

# The first process says that it had a GPU; what comes after it finds none.
HAD_A_GPU = """
from lockstep.workers.loading import Loading
wait = Loading.wait
def with_a_gpu(loading, stop, note):
    said = wait(loading, stop, note)
    for model in said["models"]:
        model["provider"]["got"] = ["cuda", "cpu"]
    return said
Loading.wait = with_a_gpu
"""


def test_other_providers_than_before_are_refused_with_both_and_the_cause(fp32: Path) -> None:
    model = Model("tiny", str(fp32), ("rocm", "cpu"), "", 1, 2, 32, 16, 1)
    LoadedModel(model, "2000-01-01T00:00:00Z", got=("cpu",)).decoder.close()
    with pytest.raises(ProviderMissing) as error:
        LoadedModel(model, "2000-01-01T00:00:00Z", got=("rocm", "cpu"))
    assert "computed on rocm, cpu so far, now there is cpu (rocm: not in this" in str(error.value)


def test_a_gpu_that_is_gone_stops_the_run_which_waits_for_it(tmp_path: Path) -> None:
    made, given = fleets.fleet(tmp_path, fleets.CONVERSATION), fleets.items(tmp_path, 40)
    job = Job(str(made), str(tmp_path), str(given), run_dir=str(tmp_path / "run"))
    with Living(job, before=HAD_A_GPU) as living:
        living.until(lambda: fleets.board_of(living.run).engine.step >= 10)
        kill(fleets.board_of(living.run).engine.pid)
        summary = living.end()
    assert (summary["state"], summary["exit_code"], summary["provider"]) == ("stopped", 3, "cuda")
    said = "the run was computed on cuda, cpu so far, now there is cpu"
    assert said in summary["reason"]
    with pytest.raises(Exception, match=said):
        resume(tmp_path / "run")
