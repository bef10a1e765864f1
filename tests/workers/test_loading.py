"""What the supervisor hears of an inference process until it serves."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from lockstep.engine.errors import Diverged, ModelError, ProviderMissing, RunStopped
from lockstep.workers.loading import Loading
from lockstep.workers.spawn import GivenUp


class Pipe:
    """Its writing end."""

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        self.loading = Loading(reading)

    def say(self, *values: dict[str, Any]) -> None:
        for value in values:
            os.write(self._writing, json.dumps(value).encode() + b"\n")

    def close(self) -> None:
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def wait(pipe: Pipe, stop: bool = False) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    return pipe.loading.wait(lambda: stop, notes.append), notes


def test_notes_are_told_and_the_last_word_is_what_was_loaded(pipe: Pipe) -> None:
    pipe.say({"note": "a"}, {"note": "b"}, {"models": [], "notes": []})
    pipe.close()
    assert wait(pipe) == ({"models": [], "notes": []}, ["a", "b"])


def test_a_line_may_come_in_pieces(pipe: Pipe) -> None:
    os.write(pipe._writing, b'{"note": "hal')
    assert pipe.loading.take() == []
    os.write(pipe._writing, b'f"}\n')
    assert pipe.loading.take() == ["half"]


def test_a_death_while_loading_is_named(pipe: Pipe) -> None:
    pipe.say({"note": "a"})
    pipe.close()
    with pytest.raises(RunStopped, match="died while it loaded"):
        wait(pipe)


def test_a_refusal_keeps_its_exit_code(pipe: Pipe) -> None:
    pipe.say({"error": "no such folder", "exit_code": 2})
    pipe.close()
    with pytest.raises(ModelError, match="no such folder") as caught:
        wait(pipe)
    assert caught.value.exit_code == 2


def test_a_token_that_is_another_one_is_a_divergence(pipe: Pipe) -> None:
    pipe.say({"error": "step 5", "exit_code": 4})
    pipe.close()
    with pytest.raises(Diverged, match="step 5"):
        wait(pipe)


def test_a_person_may_give_up(pipe: Pipe) -> None:
    with pytest.raises(GivenUp):
        wait(pipe, stop=True)


def test_want_of_a_provider_is_told_from_other_refusals(pipe: Pipe) -> None:
    pipe.say({"error": "no cuda", "exit_code": 2, "provider": True})
    with pytest.raises(ProviderMissing, match="no cuda"):
        wait(pipe)
