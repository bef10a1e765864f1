"""A reader written from docs/journal.md alone, with nothing of Lockstep in it.

If this file needs a change, so does every reader that somebody else has written.
"""

import hashlib
import json
import struct
import zlib
from pathlib import Path

import pytest

CORPUS = Path(__file__).parents[2] / "data/journals"
FOLDERS = sorted(path for path in CORPUS.iterdir() if (path / "journal").is_dir())

# -- the reader: from here to the next line of dashes ----------------------------


def read(folder):  # type: ignore[no-untyped-def]
    """(identity, environment, records of the history, digest) of a run folder's journal."""
    frames, run, link = [], b"", b""
    for number, path in enumerate(sorted((folder / "journal").glob("*.journal"))):
        data = path.read_bytes()
        magic, version, flags, run_id, segment, size, first = struct.unpack_from(
            "<8sII16sIIQ", data
        )
        assert (magic, version, size) == (b"LKSTPJ\r\n", 2, 64) and flags in (0, 1, 3, 7, 15), path
        assert struct.unpack_from("<I", data, 60)[0] == zlib.crc32(data[:60]), path
        if number == 0:
            run, link = run_id, hashlib.sha256(run_id).digest()
        assert (run_id, segment, first) == (run, number, len(frames)), path
        at = 64
        while at < len(data):
            head = data[at : at + 48]
            length, head_crc, body_crc, kind = struct.unpack_from("<IIII", head)
            assert head_crc == zlib.crc32(head[:4] + bytes(4) + head[8:]), (path, at)
            body = data[at + 48 : at + 48 + length]
            assert len(body) == length and body_crc == zlib.crc32(body), (path, at)
            assert head[16:] == link, (path, at)
            link = hashlib.sha256(head + body).digest()
            frames.append((kind, body))
            at += 48 + length + -length % 8
    assert [kind for kind, _ in frames[:2]] == [1, 2]
    history = [body for kind, body in frames if kind == 3]
    digest = hashlib.sha256(b"".join([frames[0][1], *history])).hexdigest()
    identity, environment = (json.loads(records(body)[0][4]) for _, body in frames[:2])
    return identity, environment, [r for body in history for r in records(body)], digest


def records(body):  # type: ignore[no-untyped-def]
    """(kind, id, item, peer, payload) of each record of a body."""
    found, at = [], 0
    while at < len(body):
        size, kind, _, number, item, peer, zero = struct.unpack_from("<IHHQQII", body, at)
        assert size >= 32 and zero == 0 and at + size <= len(body)
        found.append((kind, number, item, peer, body[at + 32 : at + size]))
        at += size + -size % 8
    return found


# --------------------------------------------------------------------------------


def test_there_are_golden_journals() -> None:
    assert len(FOLDERS) >= 3


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_another_reader_finds_what_the_run_said_of_itself(folder: Path) -> None:
    identity, environment, history, digest = read(folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    summary = json.loads((folder / "summary.json").read_bytes())
    assert (identity, environment) == (manifest["identity"], manifest["environment"])
    assert digest == summary["digest"]
    kinds = [kind for kind, *_ in history]
    assert (kinds[0], kinds[-1]) == (96, 105)
    assert kinds.count(97) == kinds.count(98) == summary["turns"]
    assert kinds.count(99) == summary["requests"]
    assert kinds.count(104) == summary["steps"]
    assert kinds.count(101) == summary["items_in"]
    outputs = [item for kind, _, item, _, _ in history if kind == 102]
    assert len(dict.fromkeys(outputs)) == summary["items_out"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_another_reader_finds_every_token(folder: Path) -> None:
    _, _, history, _ = read(folder)
    summary = json.loads((folder / "summary.json").read_bytes())
    tokens = 0
    for kind, _, _, _, payload in history:
        at = op = 0
        while kind == 104 and op != 6:
            op = struct.unpack_from("<H", payload, at)[0]
            tokens += op == 4
            at += 32
    assert tokens >= summary["tokens_out"] and (tokens > 0) == bool(summary["requests"])
