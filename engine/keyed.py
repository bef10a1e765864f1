"""Counter-based randomness: every draw is a hash of its name, so no draw depends on another.

Used for the order of agents inside a tag, guest randomness and sampling (rules 3 and 14). There
is no generator state to lose, share or restore.
"""

import hashlib
import struct
from collections.abc import Iterable

_COUNTERS = struct.Struct("<4Q")


def key(seed: int, purpose: str, name: str) -> bytes:
    """A 32-byte key for one stream of draws, from the run seed and the stream's name."""
    text = f"{seed}\0{purpose}\0{name}".encode()
    return hashlib.blake2b(text, digest_size=32).digest()


def draw(stream: bytes, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """The 64-bit draw number ``(a, b, c, d)`` of a stream."""
    counters = _COUNTERS.pack(a, b, c, d)
    digest = hashlib.blake2b(counters, key=stream, digest_size=8).digest()
    return int.from_bytes(digest, "little")


def draws(stream: bytes, a: int, b: int, numbers: Iterable[int]) -> list[int]:
    """`draw` of ``(a, b, number, 0)`` for each of ``numbers``. The key is taken in once."""
    keyed, found = hashlib.blake2b(key=stream, digest_size=8), []
    for number in numbers:
        one = keyed.copy()
        one.update(_COUNTERS.pack(a, b, number, 0))
        found.append(int.from_bytes(one.digest(), "little"))
    return found


def uniform(stream: bytes, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> float:
    """The draw as a float64 in [0, 1) with 53 bits, exact on every machine."""
    return (draw(stream, a, b, c, d) >> 11) * 2.0**-53


def fill(stream: bytes, number: int, size: int) -> bytes:
    """``size`` bytes of draw ``number``, for a guest's random_get."""
    blocks = range((size + 63) // 64)
    parts = (
        hashlib.blake2b(_COUNTERS.pack(number, block, 0, 0), key=stream, digest_size=64).digest()
        for block in blocks
    )
    return b"".join(parts)[:size]
