"""Memory for keys and values that outlives the process which fills it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers.inference import slab_file


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
