"""One conformance suite over all kinds of doorbells."""

import os
import pickle
import select
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lockstep.shm import (
    Doorbell,
    EventDoorbell,
    PeerDied,
    PipeDoorbell,
    RingClosed,
    SharedDoorbell,
    TrustedDoorbell,
)

KINDS = [EventDoorbell, TrustedDoorbell, PipeDoorbell, SharedDoorbell]


@pytest.fixture(params=KINDS)
def bell(request: pytest.FixtureRequest) -> Iterator[Doorbell]:
    made: Doorbell = request.param()
    yield made
    made.close()


def readable(bell: Doorbell) -> bool:
    return bool(select.select([bell], [], [], 0)[0])


def test_a_signal_with_a_handler_leaves_a_wait_waiting(bell: Doorbell) -> None:
    heard = []

    def hear(*_: object) -> None:
        heard.append(0)
        if len(heard) == 2:
            bell.ring()

    before = signal.signal(signal.SIGALRM, hear)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        assert bell.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(heard) >= 2


def test_best_kind_here_is_an_eventfd() -> None:
    for trusted, kind in ((False, EventDoorbell), (True, TrustedDoorbell)):
        bell = Doorbell.create(trusted=trusted)
        assert type(bell) is kind
        bell.close()


def test_system_without_eventfd_gets_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "eventfd")
    for trusted in (False, True):
        bell = Doorbell.create(trusted=trusted)
        assert type(bell) is PipeDoorbell
        bell.close()


def test_rings_add_up_to_one_and_are_kept_for_the_next_wait(bell: Doorbell) -> None:
    assert not bell.clear()
    bell.ring()
    bell.ring()
    assert readable(bell)
    assert bell.wait()
    assert not readable(bell)
    assert not bell.wait(0)


def test_clear_says_whether_it_was_rung(bell: Doorbell) -> None:
    bell.ring()
    assert bell.clear()
    assert not bell.clear()


def test_wait_gives_up_when_the_time_is_over(bell: Doorbell) -> None:
    assert not bell.wait(0.01)
    bell.ring()
    assert bell.wait(3600)


def test_bell_full_of_rings_does_not_block_the_ringer(bell: Doorbell) -> None:
    if type(bell) is EventDoorbell:  # A trusted one is not filled up by whom it is trusted to.
        os.eventfd_write(bell.fileno(), 2**64 - 2)
    for _ in range(70_000):
        bell.ring()
    assert bell.wait()
    assert not bell.clear()


def test_ring_of_another_process_ends_a_wait_without_time_limit(fork, bell: Doorbell) -> None:  # type: ignore[no-untyped-def]
    answer = type(bell)()

    def respond() -> None:
        for _ in range(200):
            bell.wait()
            answer.ring()

    child = fork(respond)
    for _ in range(200):
        bell.ring()
        assert answer.wait()
    assert child.join() == 0
    answer.close()


def test_ring_of_a_process_that_is_killed_afterwards_is_not_lost(fork, bell: Doorbell) -> None:  # type: ignore[no-untyped-def]
    def ring_and_stay() -> None:
        bell.ring()
        signal.pause()

    child = fork(ring_and_stay)
    assert bell.wait()
    bell.clear()
    child.kill()
    bell.ring()  # The dead reader of a pipe is no broken pipe: we hold both ends.
    assert bell.wait()


def test_descriptors_are_all_that_a_bell_holds(bell: Doorbell) -> None:
    assert bell.fileno() in bell.descriptors()
    assert len(bell.descriptors()) == (1 if isinstance(bell, EventDoorbell) else 2)
    assert not any(os.get_inheritable(number) for number in bell.descriptors())


def test_closed_bell_refuses_instead_of_touching_a_reused_number(bell: Doorbell) -> None:
    bell.close()
    bell.close()
    for use in (bell.ring, bell.clear, bell.wait, bell.fileno, bell.descriptors):
        with pytest.raises(RingClosed):
            use()


def test_who_only_rings_a_shared_bell_cannot_take_its_rings() -> None:
    bell = SharedDoorbell()
    (ringing,) = bell.ringing_descriptors()
    assert ringing != bell.fileno()
    bell.ring()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(ringing, 1)
    assert bell.clear()
    bell.close()


def test_an_eventfd_is_both_ends_and_a_pipe_has_one_for_each_side() -> None:
    event, pipe = EventDoorbell(), PipeDoorbell()
    assert event.ringing_descriptors() == event.waiting_descriptors() == event.descriptors()
    assert pipe.waiting_descriptors() + pipe.ringing_descriptors() == pipe.descriptors()
    assert pipe.fileno() in pipe.waiting_descriptors()
    event.close()
    pipe.close()


def test_each_side_of_a_bell_goes_to_another_process_as_numbers(bell: Doorbell) -> None:
    ringer = pickle.loads(pickle.dumps(bell.ringing()))
    waiter = pickle.loads(pickle.dumps(bell.waiting()))
    assert type(ringer) is type(waiter) is type(bell)
    assert ringer.descriptors() == bell.ringing_descriptors()
    assert waiter.descriptors() == bell.waiting_descriptors()
    ringer.ring()
    assert waiter.wait()
    assert not bell.clear()


@pytest.mark.parametrize("kind", [PipeDoorbell, SharedDoorbell])
def test_wait_of_who_has_one_end_alone_ends_with_the_last_ringer(
    fork: Any, kind: type[PipeDoorbell]
) -> None:
    bell = kind()

    def wait() -> None:
        mine = bell.waiting()
        for descriptor in bell.ringing_descriptors():
            os.close(descriptor)
        assert mine.wait()  # The ring that was on its way counts.
        with pytest.raises(PeerDied, match="nobody is left"):
            mine.wait()

    child = fork(wait)
    bell.ring()
    bell.close()
    assert child.join() == 0


def test_processes_that_nobody_rings_are_never_woken(fork: Any) -> None:
    bells, ready = [EventDoorbell(), PipeDoorbell()], Doorbell.create()
    there, back = Doorbell.create(), Doorbell.create()

    def idle(bell: Doorbell) -> None:
        ready.ring()
        bell.wait()

    def answer() -> None:
        while there.wait():
            back.ring()

    children = []
    for bell in bells:
        children.append(fork(partial(idle, bell)))
        ready.wait()
    partner = fork(answer)

    def talk() -> list[int]:
        for _ in range(1000):
            there.ring()
            back.wait()
        return [switches(child.pid) for child in children]

    while any(state(child.pid) != "S" for child in children):
        talk()
    asleep = talk()
    assert talk() == talk() == asleep
    for bell in bells:
        bell.ring()
    assert [child.join() for child in children] == [0, 0]
    partner.kill()
    for bell in (*bells, ready, there, back):
        bell.close()


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def state(pid: int) -> str:
    return status(pid)["State"][0]


def switches(pid: int) -> int:
    """How often a process gave its core away: each wake-up in vain would add to it."""
    return sum(int(value) for key, value in status(pid).items() if "ctxt_switches" in key)
