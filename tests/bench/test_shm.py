"""Group `shm`: every contestant sends, looks and answers; the names of the figures are fixed."""

import shutil
from pathlib import Path

import pytest

from lockstep.bench import peers, pingpong
from lockstep.bench.groups import shm
from lockstep.bench.peers import Environment, Peer
from lockstep.bench.report import Report
from lockstep.engine.errors import UsageError

ABSENT = Environment("absent", ("absent==1",), 1)
SMALL = {"MESSAGES": dict.fromkeys(shm.SIZES, 5), "TURNS": 4, "WARM_TURNS": 2, "ROTATIONS_QUICK": 6}


@pytest.fixture
def system_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's, which is quick; `zig cc` builds its own C library first."""
    found = shutil.which("cc")
    if not found:
        pytest.skip("no compiler named cc")
    monkeypatch.setattr(pingpong, "compiler", lambda: [found])


@pytest.mark.parametrize("size", [64, 1_048_576])
def test_our_rings_take_every_message_in_order(size: int) -> None:
    with shm.rings() as line:
        for way in ("ring", "each", "slots"):
            for count in (1, 3, 700 if size < 65_536 else 20):  # `ask` fails if one is damaged.
                assert line.ask(way=way, size=size, messages=count)["ns"] > 0
        for way in ("ring", "wake"):
            for count in (1, 300):
                assert len(line.ask(way=way, size=64, turns=count)["times_ns"]) == count


@pytest.mark.parametrize("way", shm.PLAIN)
def test_other_ways_take_every_message_in_order(way: str) -> None:
    with Peer("transports", peers.PLAIN).start() as line:
        for size in (1, 64, 65_536):
            for count in (1, 50):
                assert line.ask(way=way, size=size, messages=count)["ns"] > 0
            assert len(line.ask(way=way, size=size, turns=20)["times_ns"]) == 20


@pytest.mark.peers
def test_zeromq_takes_every_message_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    if not peers.PYZMQ.ready():
        pytest.skip("lockstep bench setup shm")
    with Peer("transports", peers.PYZMQ).start() as line:
        for way in shm.ZMQ:
            for size in shm.SIZES:
                assert line.ask(way=way, size=size, messages=30)["ns"] > 0
        assert len(line.ask(way="zmq", size=64, turns=20)["times_ns"]) == 20


def test_c_program_is_compiled_once_and_gives_as_many_times_as_are_asked_for(
    system_compiler: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = pingpong.program()
    assert program and min(pingpong.turns(program, 30)) > 0
    monkeypatch.setattr(pingpong, "compiler", lambda: None)
    assert pingpong.program() == program
    with pytest.raises(UsageError, match="exit status 2"):
        pingpong.turns(program, 0)


def test_program_that_cannot_be_compiled_is_one_line_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(pingpong, "compiler", lambda: ["false"])
    with pytest.raises(UsageError, match=r"pingpong\.c: false refused it"):
        pingpong.program()
    report = Report("shm", {})
    assert shm._program(report) is None  # And all else is measured.
    assert [(name, why[:10]) for name, why, _ in report.skipped] == [("roundtrip_c", "pingpong.c")]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_report_has_the_ratios_that_are_fixed_and_names_what_is_not_there(
    system_compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(shm, name, value)
    absent = (Peer("transports", ABSENT), shm.ZMQ)
    monkeypatch.setitem(shm.PEERS, "pyzmq", absent)
    report: Report = shm.run(True, lambda _: None)
    assert {"queue_64", "pipe_64", "slots_queue_64", "roundtrip_c", "roundtrip_message_c"} < set(
        report.ratios
    )
    assert all(0 < one.low <= one.median <= one.high for one in report.ratios.values())
    names = {name for name, _, _ in report.skipped}
    copying = {"pyzmq_64", "pyzmq_1k", "pyzmq_64k", "pyzmq_1m", "roundtrip_pyzmq"}
    assert names == copying | {"pyzmq_nocopy_64k", "pyzmq_nocopy_1m"}
    assert {get for _, _, get in report.skipped} == {"lockstep bench setup shm"}
    rates = {f"ring_{label}_per_s" for label in shm.SIZES.values()}
    assert rates | {"roundtrip_p50_us", "roundtrip_p99_us", "wake_p50_us"} < set(report.results)


def test_without_a_compiler_the_limit_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shm.pingpong, "program", lambda: None)
    for name, value in SMALL.items():
        monkeypatch.setattr(shm, name, value)
    report = Report("shm", {})
    with shm.rings() as ours:
        shm._round_trips(report, ours, {}, 6)
    assert report.skipped == [("roundtrip_c", "there is no C compiler", pingpong.GET)]
