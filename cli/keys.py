"""Keys: what a terminal sends when a person presses one, as names."""

import re
from collections.abc import Iterator

ESCAPE, ENTER, BACKSPACE = "escape", "enter", "backspace"
# Without the escape and its bracket or O; as xterm and its descendants send them.
NAMES = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "H": "home",
    "F": "end",
    "1~": "home",
    "4~": "end",
    "7~": "home",
    "8~": "end",
    "5~": "page up",
    "6~": "page down",
}
_PLAIN = {"\r": ENTER, "\n": ENTER, "\x7f": BACKSPACE, "\x08": BACKSPACE}
_SEQUENCE = re.compile(r"\x1b(?:\[([0-9;?]*[@-~])|O(.))")


def keys_of(data: bytes) -> Iterator[str]:
    """Names of keys, or the character itself; what is neither is passed over.

    Args:
        data: As it was read at once: a terminal sends a sequence whole, a person a lone escape.
    """
    text = data.decode("utf-8", "ignore")
    at = 0
    while at < len(text):
        found = _SEQUENCE.match(text, at)
        if found is not None:
            at = found.end()
            name = NAMES.get(found[1] or found[2])
            if name is not None:
                yield name
            continue
        character, at = text[at], at + 1
        if character == "\x1b":
            yield ESCAPE
        elif character in _PLAIN:
            yield _PLAIN[character]
        elif character.isprintable():
            yield character
