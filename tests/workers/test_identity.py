"""What a journal says of its run: believed only in the form that the rest of Lockstep takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lockstep.engine.errors import JournalCorrupt, UsageError
from lockstep.engine.journal import JournalReader, JournalWriter
from lockstep.engine.journal import format as fmt
from lockstep.engine.outside import Outside, What
from lockstep.engine.record import Kind, encode
from lockstep.engine.strict_json import dumps
from lockstep.engine.version import LOGIC_FLAGS
from lockstep.workers.identity import differences, kept_records, read_journal, read_manifest

RUN = Path("runs/7")
IDENTITY = {"fleet": {"seed": 3}, "order": "strict", "logic_flags": LOGIC_FLAGS}
ENVIRONMENT: dict[str, Any] = {
    "seed": 3,
    "fleet_sha256": "00",
    "has_input": True,
    "models": {"m": "/models/m"},
}


class Memory:
    """A sink in memory."""

    data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def journal(*bodies: tuple[int, bytes]) -> JournalReader:
    """A well-checksummed journal, whatever its bodies are."""
    sink = Memory()
    writer = JournalWriter(sink, bytes(16))
    for kind, body in bodies:
        writer.append(kind, body)
    return JournalReader(sink.data, "j")


def manifest(
    identity: bytes = encode(Kind.IDENTITY, dumps(IDENTITY)),
    environment: bytes = encode(Kind.ENVIRONMENT, dumps(ENVIRONMENT)),
) -> JournalReader:
    return journal((fmt.IDENTITY, identity), (fmt.ENVIRONMENT, environment))


def corrupt(found: JournalReader) -> str:
    with pytest.raises(JournalCorrupt) as error:
        read_manifest(found, RUN)
    return str(error.value)


def test_identity_and_environment_are_read_as_written() -> None:
    assert read_manifest(manifest(), RUN) == (IDENTITY, ENVIRONMENT)


def test_rules_that_are_not_those_of_the_journals_header_are_refused() -> None:
    for flags in (LOGIC_FLAGS + 1, None, str(LOGIC_FLAGS)):
        record = encode(Kind.IDENTITY, dumps(IDENTITY | {"logic_flags": flags}))
        assert "identity: logic_flags" in corrupt(manifest(identity=record))


def test_a_journal_that_begins_otherwise_is_refused() -> None:
    record = encode(Kind.IDENTITY, b"{}")
    for bodies in ((), ((fmt.IDENTITY, record),), ((fmt.ENVIRONMENT, record),) * 2):
        assert "does not begin with identity and environment" in corrupt(journal(*bodies))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        encode(Kind.IDENTITY, b""),
        encode(Kind.IDENTITY, b"x"),
        encode(Kind.IDENTITY, b"[]"),
        encode(Kind.IDENTITY, b"null"),
        encode(Kind.IDENTITY, b"\xff"),
        encode(Kind.IDENTITY, b"[" * 5000),
        encode(Kind.IDENTITY, b'{"fleet":' + b"1" * 5000 + b"}"),
        encode(Kind.IDENTITY, b'{"fleet":{},"fleet":{}}'),
        encode(Kind.IDENTITY, dumps(IDENTITY))[:-1],
        encode(Kind.IDENTITY, dumps(IDENTITY)) * 2,
        encode(Kind.TAG, dumps(IDENTITY)),
    ],
)
def test_a_frame_that_is_not_one_record_with_an_object_is_refused(body: bytes) -> None:
    assert corrupt(manifest(identity=body)).startswith("runs/7: the journal's identity ")
    swapped = body.replace(bytes([Kind.IDENTITY, 0]), bytes([Kind.ENVIRONMENT, 0]), 2)
    assert corrupt(manifest(environment=swapped)).startswith("runs/7: the journal's environment ")


@pytest.mark.parametrize(
    ("key", "values"),
    [("fleet", [None, [], "x"]), ("order", [None, "", "any", 1, ["strict"]])],
)
def test_an_identity_with_a_missing_key_or_a_wrong_type_is_refused(
    key: str, values: list[object]
) -> None:
    missing = {name: value for name, value in IDENTITY.items() if name != key}
    for value in (missing, *({**IDENTITY, key: each} for each in values)):
        message = corrupt(manifest(identity=encode(Kind.IDENTITY, dumps(value))))
        assert message == f"runs/7: the journal's identity: {key} is missing or of a wrong type"


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("seed", [None, "3", 3.0, True, [3]]),
        ("fleet_sha256", [None, 3, ["00"]]),
        ("has_input", [None, 0, 1, "true"]),
        ("models", [None, [], "m", {"m": None}, {"m": 1}, {"m": ["x"]}]),
    ],
)
def test_an_environment_with_a_missing_key_or_a_wrong_type_is_refused(
    key: str, values: list[object]
) -> None:
    missing = {name: value for name, value in ENVIRONMENT.items() if name != key}
    for value in (missing, *({**ENVIRONMENT, key: each} for each in values)):
        message = corrupt(manifest(environment=encode(Kind.ENVIRONMENT, dumps(value))))
        assert message == (
            f"runs/7: the journal's environment: {key} is missing or of a wrong type"
        )


def test_a_folder_without_a_journal_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run in this folder"):
        read_journal(tmp_path)


def test_differences_are_named_by_path_in_key_order() -> None:
    left = {"b": [1, {"x": 2}], "a": 1, "c": None}
    right = {"b": [1, {"x": 3}], "a": "1"}
    assert differences(left, right) == ["a: 1 -> 1", "b[1].x: 2 -> 3"]


KEPT = Outside(1, (4, 0), What.TOOL, 7, 0, b"x").record()
ORDERED = encode(Kind.ORDERED, id=3, item=9)


def kept(*bodies: bytes) -> list[bytes]:
    frames = [frame for body in bodies for frame in ((fmt.KEPT, body), (fmt.HISTORY, b"x"))]
    return kept_records(journal(*frames), RUN)


def test_what_a_run_kept_is_read_record_by_record() -> None:
    assert kept() == []
    assert kept(KEPT + ORDERED, ORDERED) == [KEPT, ORDERED, ORDERED]


@pytest.mark.parametrize(
    "body", [KEPT[:-8], b"x", KEPT + b"x", encode(Kind.TAG), encode(Kind.OUTSIDE)]
)
def test_what_a_run_cannot_have_kept_is_refused(body: bytes) -> None:
    with pytest.raises(JournalCorrupt, match=r"runs/7: what the journal kept cannot be read: "):
        kept(body)
