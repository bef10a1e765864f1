"""Standard error is taken, read and given back, whatever happens meanwhile."""

import os
from pathlib import Path

import pytest

from lockstep.workers.inference.stderr import CapturedStderr


def test_text_is_kept_without_colours_and_the_descriptor_given_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with CapturedStderr() as log:
        os.write(2, b"\x1b[1;31mE: libx\xff\x1b[m\n")
        print("a line of Python")
    os.write(2, b"after\n")
    assert log.text == "E: libx\ufffd\n"
    assert capfd.readouterr() == ("", "after\n")


def test_descriptor_is_given_back_after_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(KeyError), CapturedStderr() as log:
        os.write(2, b"inside")
        raise KeyError
    os.write(2, b"after")
    assert log.text == "inside"
    assert capfd.readouterr() == ("", "after")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
