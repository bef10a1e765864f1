"""Who lives, and what of the dead may be removed."""

import os
import re
import select
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lockstep.shm import (
    Board,
    BoardReader,
    Doorbell,
    alive,
    create,
    current,
    identity,
    identity_of,
    next_name,
    segment_name,
    sweep,
)

SHM = Path("/dev/shm")


@pytest.fixture
def litter() -> Iterator[list[Path]]:
    """Files that a test leaves in /dev/shm on purpose."""
    paths: list[Path] = []
    yield paths
    for path in paths:
        path.unlink(missing_ok=True)


@pytest.fixture
def dead(fork, monkeypatch: pytest.MonkeyPatch) -> identity.Identity:  # type: ignore[no-untyped-def]
    """Identity of a process that only we take for dead.

    Runs that go on beside this test sweep /dev/shm, too: what really was a dead one's, they would
    remove before we do.
    """
    who, started = identity_of(fork(signal.pause).pid), identity._start_time_ticks
    monkeypatch.setattr(
        identity, "_start_time_ticks", lambda pid: None if pid == who.pid else started(pid)
    )
    return who


def name_of(who: identity.Identity, number: int, uid: int | None = None) -> str:
    user = os.getuid() if uid is None else uid
    return f"lockstep-{user}-{who.pid}-{who.start_time_ticks}-{number}"


def test_current_process_is_alive_and_always_the_same() -> None:
    me = current()
    assert me == identity_of(os.getpid()) == current()
    assert alive(me)


@pytest.mark.parametrize("change", [{"start_time_ticks": 1}, {"boot_id": "another boot"}])
def test_same_pid_of_another_time_or_boot_is_another_process(change: dict[str, int]) -> None:
    assert not alive(replace(current(), **change))  # type: ignore[arg-type]


def test_killed_process_is_dead_as_a_zombie_and_after_it_was_reaped(fork) -> None:  # type: ignore[no-untyped-def]
    child = fork(signal.pause)
    who = identity_of(child.pid)
    assert alive(who)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # Dead, not reaped.
    assert not alive(who)
    with pytest.raises(ProcessLookupError):
        identity_of(child.pid)
    child.join()
    assert not alive(who)


def test_forked_child_is_somebody_else(fork) -> None:  # type: ignore[no-untyped-def]
    me, name = current(), next_name()

    def check() -> None:
        assert current() != me
        assert next_name().rpartition("-")[0] != name.rpartition("-")[0]

    assert fork(check).join() == 0


def test_command_with_spaces_and_parentheses_does_not_confuse_the_start_time() -> None:
    expected, seen = current(), []
    comm = Path("/proc/self/comm")
    before = comm.read_text().strip()
    comm.write_text("a) Z 1 (b")
    try:
        seen.append(current())
    finally:
        comm.write_text(before)
    assert seen == [expected]


def test_process_whose_main_thread_ended_is_not_taken_for_dead(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    stat = Path(f"/proc/{os.getpid()}/stat").read_text()
    head, _, rest = stat.rpartition(")")
    fields = rest.split()
    fields[0], fields[17] = "Z", "3"
    for name in ("self", "77"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stat").write_text(f"{head}) {' '.join(fields)}")
    monkeypatch.setattr(identity, "PROC", tmp_path)
    assert identity._start_time_ticks(77) == int(fields[19])
    fields[17] = "1"
    (tmp_path / "77" / "stat").write_text(f"{head}) {' '.join(fields)}")
    assert identity._start_time_ticks(77) is None


def test_names_say_who_made_them_and_never_repeat() -> None:
    me = current()
    assert segment_name(5) == f"/{name_of(me, 5)}"
    names = {next_name() for _ in range(10)}
    assert len(names) == 10
    assert all(re.fullmatch(r"/lockstep(-\d+){4}", name) for name in names)


def test_sweep_removes_what_a_killed_process_left(fork, litter: list[Path]) -> None:  # type: ignore[no-untyped-def]
    ready = Doorbell.create()

    def make_and_stay() -> None:
        create(segment_name(0), 4096)
        Board.create(segment_name(1), agents=2)
        ready.ring()
        signal.pause()

    child = fork(make_and_stay)
    ready.wait()
    who = identity_of(child.pid)
    names = [f"/{name_of(who, number)}" for number in (0, 1)]
    litter += [SHM / name[1:] for name in names]
    observer = BoardReader.attach(names[1])
    assert not set(names) & set(sweep())  # It lives.
    child.kill()
    sweep()  # Or somebody else was first.
    assert not any(path.exists() for path in litter)
    assert not set(names) & set(sweep())  # Nothing left to remove.
    assert observer.snapshot().agents[1].index == 1  # The observer keeps its mapping.
    observer.close()
    ready.close()


def test_sweep_leaves_what_a_child_of_the_dead_still_maps(fork, litter: list[Path]) -> None:  # type: ignore[no-untyped-def]
    end, (told, tell) = Doorbell.create(), os.pipe()

    def make_fork_and_stay() -> None:
        kept = create(segment_name(0), 4096)
        if os.fork() == 0:
            signal.alarm(60)  # No orphan outlives a failed test for long.
            os.write(tell, str(os.getpid()).encode())
            end.wait()
            os._exit(len(kept.memory) != 4096)
        signal.pause()

    parent = fork(make_fork_and_stay)
    orphan = os.pidfd_open(int(os.read(told, 20)))
    name = name_of(identity_of(parent.pid), 0)
    litter.append(SHM / name)
    parent.kill()
    assert f"/{name}" not in sweep()
    assert (SHM / name).exists()
    end.ring()
    select.select([orphan], [], [])  # Readable when it has ended and given all back.
    sweep()
    assert not (SHM / name).exists()
    for descriptor in (orphan, told, tell):
        os.close(descriptor)
    end.close()


def test_sweep_says_what_it_removed_and_never_touches_anything_else(
    dead: identity.Identity, litter: list[Path]
) -> None:
    me = current()
    names = [
        name_of(me, 987_654),  # Alive.
        name_of(dead, 1, uid=os.getuid() + 1),  # Another user's name.
        f"x{name_of(dead, 2)}",
        f"{name_of(dead, 3)}.old",
        f"{name_of(dead, 4)}-5",
        f"lockstep-{os.getuid()}-{dead.pid}-{dead.start_time_ticks}",
        f"lockstep-{os.getuid()}-0{dead.pid}-{dead.start_time_ticks}-6",  # Not canonical.
        f"lockstep-{os.getuid()}-{dead.pid}-{dead.start_time_ticks}-٣",
        f"{name_of(dead, 7)}\n",
    ]
    for name in names:
        (SHM / name).touch()
        litter.append(SHM / name)
    link, pipe = SHM / name_of(dead, 8), SHM / name_of(dead, 9)
    link.symlink_to(SHM / names[0])
    os.mkfifo(pipe)
    litter += [link, pipe]
    stale = SHM / name_of(dead, 10)
    stale.touch()
    litter.append(stale)
    assert [name for name in sweep() if str(dead.pid) in name] == [f"/{stale.name}"]
    assert all((SHM / name).exists() for name in names)
    assert link.is_symlink()
    assert pipe.is_fifo()


def test_process_that_reuses_the_pid_of_a_dead_owner_does_not_protect_its_segments(
    litter: list[Path],
) -> None:
    earlier = replace(current(), start_time_ticks=current().start_time_ticks - 1)
    stale = SHM / name_of(earlier, 0)
    stale.touch()
    litter.append(stale)
    sweep()
    assert not stale.exists()


def test_sweep_without_proc_proves_nothing_and_removes_nothing(
    dead: identity.Identity, litter: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = SHM / name_of(dead, 0)
    stale.touch()
    litter.append(stale)
    with monkeypatch.context() as patch:
        patch.setattr(identity, "PROC", tmp_path)
        with pytest.raises(FileNotFoundError):
            sweep()
    assert stale.exists()


def test_many_sweepers_remove_each_segment_once(
    dead: identity.Identity, litter: list[Path]
) -> None:
    stale = [SHM / name_of(dead, number) for number in range(50)]
    for path in stale:
        path.touch()
    litter += stale
    removed: list[str] = []
    threads = [threading.Thread(target=lambda: removed.extend(sweep())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mine = [name for name in removed if str(dead.pid) in name]
    assert sorted(mine) == sorted(f"/{path.name}" for path in stale)


def holding(fork, path: Path):  # type: ignore[no-untyped-def]
    """A process that sweeps, and stays in it."""
    ready = Doorbell.create()

    def hold() -> None:
        with identity.alone(path):
            ready.ring()
            signal.pause()

    child = fork(hold)
    ready.wait()
    ready.close()
    return child


def test_sweeper_that_dies_lets_the_next_one_sweep_and_leaves_no_file(
    fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(identity, "FOLDER", tmp_path)  # Where nobody else sweeps.
    lock = tmp_path / f"lockstep-{os.getuid()}.sweep"
    holding(fork, lock).kill()
    assert lock.exists()
    sweep()
    assert not lock.exists()


def test_sweeper_that_is_stopped_does_not_keep_others_from_starting(
    fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    lock = tmp_path / "sweep"
    holding(fork, lock)
    monkeypatch.setattr(identity, "ALONE_S_MAX", 0.05)
    with identity.alone(lock):
        pass
    assert lock.exists()  # It is not ours to remove.


def test_sweep_goes_on_beside_a_file_of_another_kind(tmp_path: Path) -> None:
    lock = tmp_path / "sweep"
    lock.symlink_to("/nowhere")
    with identity.alone(lock):
        pass
    assert lock.is_symlink()
