"""The two digests of a run: what it is and what it did, in the order of logical time (rule 7)."""

import hashlib
from typing import Any

from lockstep.engine.history import Entry
from lockstep.engine.record import Kind, encode
from lockstep.engine.strict_json import dumps


def identity_record(identity: dict[str, Any]) -> bytes:
    """The identity as the journal and the digest take it: canonical JSON in a record."""
    return encode(Kind.IDENTITY, dumps(identity))


class Digest:
    """``digest`` over identity and history, ``digest_text`` over messages, tokens and outputs.

    Two executions of one run have equal digests; two machine types that compute other bits but
    say the same have equal text digests.
    """

    def __init__(self, identity: bytes) -> None:
        self._history = hashlib.sha256(identity)
        self._text = hashlib.sha256()

    def add(self, entry: Entry) -> None:
        """The next entry of history."""
        self._history.update(entry.body)
        self._text.update(entry.text)

    @property
    def digest(self) -> str:
        """Hex digest so far."""
        return self._history.hexdigest()

    @property
    def digest_text(self) -> str:
        """Hex digest of what was said so far."""
        return self._text.hexdigest()
