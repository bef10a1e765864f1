"""Keys as terminals send them."""

import pytest

from lockstep.cli.keys import keys_of


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"qS/ ", ["q", "S", "/", " "]),
        (b"\x1b[A\x1b[B\x1bOC\x1b[D", ["up", "down", "right", "left"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[4~", ["page up", "page down", "home", "end"]),
        (b"\x1b", ["escape"]),
        (b"\x1b[A\x1b", ["up", "escape"]),
        (b"\r\n\x7f\x08", ["enter", "enter", "backspace", "backspace"]),
        (b"\x1b[15~\x1b[1;5Ax", ["x"]),
        ("ä".encode(), ["ä"]),
        (b"\xff\x00\x01a", ["a"]),
    ],
)
def test_bytes_become_names_of_keys(data: bytes, names: list[str]) -> None:
    assert list(keys_of(data)) == names
