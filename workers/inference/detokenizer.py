"""Streaming detokeniser: the text of an answer as far as no further token can change it.

The pieces, joined, are always a beginning of the text that the whole answer will have, and with
`finish` they are that text (`Text.decode`). Held back are: bytes that are not a whole UTF-8
character yet, and, for tokenizers with byte fallback, a run of byte tokens until it ends, since one
bad byte turns the whole run into U+FFFD.

A tokenizer decodes a token by what stands before it (a leading space, say), so the tokens of the
last piece are decoded again as context, and their text taken off. A token costs the same however
long the answer is.
"""

from lockstep.workers.inference.text import Text

REPLACEMENT = "\ufffd"


class Detokenizer:
    """One answer's. Token ids in, text out."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._tail: list[int] = []  # Context, then what is not settled.
        self._context = 0  # So many tokens of it are context, and this is their text.
        self._known = ""

    def push(self, token: int) -> str:
        """Take a token; the text that is settled by it."""
        if self._text.silent(token):
            return ""
        self._tail.append(token)
        if self._text.byte(token):
            return ""
        whole = self._text.decode(self._tail)
        if whole.endswith(REPLACEMENT) or not whole.startswith(self._known):
            return ""
        piece = whole[len(self._known) :]
        self._tail = self._tail[self._context :]
        self._context = len(self._tail)
        self._known = self._text.decode(self._tail)
        return piece

    def finish(self) -> str:
        """No token will follow: the rest of the text."""
        return self._text.decode(self._tail)[len(self._known) :]
