"""A token's name: the bytes that it stands for in a text, and those as text.

A token need not be a whole character, so bytes say it exactly; what is not UTF-8 is U+FFFD in its
text, as OpenAI and vLLM show it. Byte-level tokenizers write each byte as a character of its own:
those that ASCII and Latin-1 can print stand for themselves, the others for 256, 257, ... in order.
"""

from typing import NamedTuple, Self

PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(256) if byte not in PRINTABLE]
BYTE_OF = {chr(byte): byte for byte in PRINTABLE} | {
    chr(256 + place): byte for place, byte in enumerate(_OTHERS)
}


class TokenName(NamedTuple):
    """What a token is: its text, and the bytes of UTF-8 that it stands for."""

    text: str
    data: bytes

    @classmethod
    def of(cls, data: bytes) -> Self:
        """By its bytes."""
        return cls(data.decode("utf-8", "replace"), data)


def byte_level(token: str) -> bytes | None:
    """The bytes of a token of a byte-level vocabulary; None: it is not written so."""
    if not all(character in BYTE_OF for character in token):
        return None
    return bytes(BYTE_OF[character] for character in token)
