"""Memory for keys and values that outlives the process which fills it."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Model
from lockstep.workers import room
from lockstep.workers.inference import slab_file
from lockstep.workers.inference.loaded import load_all
from lockstep.workers.inference.spec import InferenceSpec


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = slab_file.create("a/model")
    yield made
    os.close(made)


def test_what_a_killed_process_wrote_is_there_for_the_next(descriptor: int) -> None:
    pid = os.fork()
    if pid == 0:
        word, slab = slab_file.mapped(descriptor, 10_000)
        word[0], slab[9_000:9_004] = 2**63, b"bits"
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    word, again = slab_file.mapped(descriptor, 10_000)
    assert word.tolist() == [2**63] and len(again) == 10_000
    assert bytes(again[9_000:9_004]) == b"bits"
    assert not any(again[:9_000])


def test_a_large_slab_costs_nothing_before_it_is_used(descriptor: int) -> None:
    slab_file.mapped(descriptor, 1 << 28)
    assert os.fstat(descriptor).st_blocks == 0


def test_it_is_in_no_file_system_that_may_be_small(descriptor: int) -> None:
    found = Path(f"/proc/self/fd/{descriptor}").readlink()
    assert str(found).startswith("/memfd:lockstep-kv-a/model")


def test_more_than_the_machine_has_is_refused_with_the_arithmetic(descriptor: int) -> None:
    wanted = r"KV slots need 1152921504606851072 bytes of memory, there are \d+ bytes \(.*rows_max"
    with pytest.raises(UsageError, match=wanted):
        slab_file.mapped(descriptor, 1 << 60)
    assert os.fstat(descriptor).st_size == 0


def test_a_child_of_ours_does_not_inherit_it_over_exec(descriptor: int) -> None:
    assert not os.get_inheritable(descriptor)


def test_slots_that_fit_one_by_one_and_not_together_with_the_agents_are_refused(
    fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "PROC", tmp_path)
    monkeypatch.setattr(room, "CGROUPS", tmp_path)
    (tmp_path / "meminfo").write_text("MemAvailable: 102400 kB\n")
    one = Model("one", str(fp32), ("cpu",), "", 1, 3, 96, 16, 1, rows_kept=800)
    spec = InferenceSpec(
        models=(one, replace(one, name="other")),
        agent_names=("ann",),
        seed=5,
        frozen_date="2000-01-01T00:00:00Z",
        lookahead=1,
        priority_steps=8,
        record_bytes_max=65_536,
        agents_bytes=30 << 20,
    )

    def load(asked: InferenceSpec) -> None:
        files = [slab_file.create(model.name) for model in asked.models]
        try:
            for model in load_all(asked, files):
                model.decoder.close()  # type: ignore[union-attr]
        finally:
            for file in files:
                os.close(file)

    load(replace(spec, models=spec.models[:1]))
    # Once the agents have started, what is free says what they have taken.
    load(replace(spec, agents_bytes=0))
    wanted = (
        r"^\[models.other\]: the KV slots so far and the agents need 10\d.\d MiB of memory "
        r"\(one (3\d.\d) MiB \+ other \1 MiB \+ agents 30.0 MiB\), "
        r"there are 100.0 MiB beside the weights \("
    )
    with pytest.raises(UsageError, match=wanted):
        load(spec)
