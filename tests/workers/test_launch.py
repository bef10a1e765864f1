"""A supervisor process, as who started it speaks with it."""

from __future__ import annotations

from pathlib import Path

import fleets
import pytest

from lockstep.workers.job import Job
from lockstep.workers.launch import Conversation, Interrupted


def test_an_interrupt_before_the_supervisor_can_count_it_is_kept_for_when_it_can(
    tmp_path: Path,
) -> None:
    fleet = fleets.fleet(tmp_path, fleets.ECHO)
    job = Job(str(fleet), str(tmp_path), input=str(fleets.items(tmp_path, 3)))
    talk = Conversation(job, None, None)
    # Nothing was heard of it yet, whatever it has done: a signal might meet an interpreter that
    # starts and die of it, or meet one that ignores it (a background job of a shell) and be lost.
    talk.interrupt()
    assert talk.hear()  # That it counts signals. It waits for its job, so it has done nothing yet.
    talk.begin()
    while talk.hear():
        pass
    talk.close()
    with pytest.raises(Interrupted, match="interrupted"):
        talk.summary()
    assert not (tmp_path / "runs").exists()
