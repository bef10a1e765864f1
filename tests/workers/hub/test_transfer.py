"""One file over connections that break: it goes on where it was, and is proven at its end."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hubserver import Fault, Server, serving

from lockstep.workers.hub.library import Hub
from lockstep.workers.hub.listing import Listing, Name, PullStopped, RemoteFile
from lockstep.workers.hub.transfer import TRIES_MAX, Part, fetch, proven

DATA = bytes(n * n % 251 for n in range(200_000))
NAME = "model.onnx"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving({NAME: DATA, "config.json": b"{}"}) as found:
        yield found


@pytest.fixture
def place(server: Server) -> Iterator[tuple[Hub, Listing]]:
    with Hub(server.url) as hub:
        yield hub, hub.listing(Name("acme/tiny"))


def told(_size: int) -> None:
    pass


def bring(place: tuple[Hub, Listing], path: Path, name: str = NAME) -> list[float]:
    """Fetch a file into ``path``; the pauses that there would have been, in seconds."""
    hub, listing = place
    file = listing.files[name]
    pauses: list[float] = []
    with Part(path, file) as part:
        part.recall(told)
        fetch(part, lambda offset: hub.read(listing, file, offset), told, pauses.append)
        assert part.prove() == hashlib.sha256(path.read_bytes()).hexdigest()
    return pauses


@pytest.mark.parametrize("at", [1, 8191, 8192, 65_536, 131_073, len(DATA) - 1])
def test_a_cut_connection_goes_on_at_its_byte(
    server: Server, place: tuple[Hub, Listing], tmp_path: Path, at: int
) -> None:
    server.faults = [Fault("cut", at)]
    assert bring(place, tmp_path / "x") == []
    assert (tmp_path / "x").read_bytes() == DATA
    assert server.gets(NAME) == ["", f"bytes={at}-"]


def test_a_connection_cut_again_and_again_asks_for_no_byte_twice(
    server: Server, place: tuple[Hub, Listing], tmp_path: Path
) -> None:
    offsets = list(range(7, len(DATA), 20_011))
    server.faults = [Fault("cut", at) for at in offsets]
    assert bring(place, tmp_path / "x") == []
    assert (tmp_path / "x").read_bytes() == DATA
    assert server.gets(NAME) == ["", *(f"bytes={at}-" for at in offsets)]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again_after_a_pause(
    server: Server, place: tuple[Hub, Listing], tmp_path: Path, status: int
) -> None:
    server.faults = [Fault("status", status, times=2)]
    assert bring(place, tmp_path / "x") == [1.0, 2.0]
    assert (tmp_path / "x").read_bytes() == DATA


def test_nothing_at_all_is_given_up_after_so_many_tries_and_what_is_there_stays(
    server: Server, place: tuple[Hub, Listing], tmp_path: Path
) -> None:
    server.faults = [Fault("cut", 1000), Fault("cut", 0, times=99)]
    hub, listing = place
    file, pauses = listing.files[NAME], list[float]()
    with Part(tmp_path / "x", file) as part, pytest.raises(PullStopped) as caught:
        fetch(part, lambda offset: hub.read(listing, file, offset), told, pauses.append)
    assert f"model.onnx: {server.url} cannot be reached" in str(caught.value)
    assert f"({TRIES_MAX} tries)" in str(caught.value)
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    assert (tmp_path / "x").read_bytes() == DATA[:1000]
    assert server.gets(NAME) == ["", *["bytes=1000-"] * TRIES_MAX]


@pytest.mark.parametrize("status", [400, 403, 404, 410, 416])
def test_a_refusal_is_not_repeated(
    server: Server, place: tuple[Hub, Listing], tmp_path: Path, status: int
) -> None:
    server.faults = [Fault("status", status)]
    with pytest.raises(PullStopped, match=f"answers {status}: as ordered") as caught:
        bring(place, tmp_path / "x")
    assert "Signature" not in str(caught.value)
    assert server.gets(NAME) == [""]


def test_a_server_without_ranges_begins_anew(
    server: Server, place: tuple[Hub, Listing], tmp_path: Path
) -> None:
    server.faults = [Fault("cut", 70_000), Fault("deaf")]
    (tmp_path / "x").write_bytes(b"")
    bring(place, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert server.gets(NAME) == ["", "bytes=70000-"]


@pytest.mark.parametrize("name", [NAME, "config.json"])
def test_other_bytes_than_the_hub_says_are_thrown_away(
    server: Server, place: tuple[Hub, Listing], tmp_path: Path, name: str
) -> None:
    server.faults = [Fault("wrong", 1)]
    digest = place[1].files[name].digest
    with pytest.raises(PullStopped, match=f"{name}: its .* expected {digest}.*thrown away"):
        bring(place, tmp_path / "x", name)
    assert (tmp_path / "x").read_bytes() == b""
    bring(place, tmp_path / "x", name)
    assert (tmp_path / "x").read_bytes() == server.files[name]


def test_a_damaged_part_is_found_at_the_end(
    server: Server, place: tuple[Hub, Listing], tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(b"\0" * 50_000)
    with pytest.raises(PullStopped, match="thrown away"):
        bring(place, tmp_path / "x")
    assert server.gets(NAME) == ["bytes=50000-"]
    bring(place, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_part_longer_than_its_file_begins_anew(
    server: Server, place: tuple[Hub, Listing], tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(DATA + b"more")
    bring(place, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_whole_part_costs_no_request(
    server: Server, place: tuple[Hub, Listing], tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(DATA)
    bring(place, tmp_path / "x")
    assert server.gets(NAME) == []


def test_more_bytes_than_the_file_has_are_refused(
    server: Server, place: tuple[Hub, Listing], tmp_path: Path
) -> None:
    server.faults = [Fault("long")]
    with pytest.raises(PullStopped, match=r"the server sent bytes .* to at most 200000"):
        bring(place, tmp_path / "x")
    assert (tmp_path / "x").stat().st_size <= len(DATA)


def test_bytes_from_another_place_are_refused(tmp_path: Path) -> None:
    with Part(tmp_path / "x", RemoteFile("x", 10, "git:" + "0" * 40)) as part:
        part.write(0, b"abc")
        with pytest.raises(PullStopped, match="sent bytes 5 to 6, expected 3"):
            part.write(5, b"f")
        part.write(3, b"d")
        assert part.size == 4


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "x").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic links"):
        Part(tmp_path / "x", RemoteFile("x", 0, "git:" + "0" * 40))
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_an_empty_file_is_proven_without_a_request(tmp_path: Path) -> None:
    file = RemoteFile("x", 0, "git:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
    with Part(tmp_path / "x", file) as part:
        fetch(part, lambda _: pytest.fail("asked"), told)
        assert part.prove() == hashlib.sha256(b"").hexdigest()
    assert proven(tmp_path / "x", file, told) == hashlib.sha256(b"").hexdigest()
    (tmp_path / "x").write_bytes(b"?")
    assert proven(tmp_path / "x", file, told) is None
    assert (tmp_path / "x").read_bytes() == b"?"
