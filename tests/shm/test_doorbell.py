"""One conformance suite over all kinds of doorbells."""

import os
import select
import signal
from collections.abc import Iterator

import pytest

from lockstep.shm import (
    Doorbell,
    EventDoorbell,
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


def test_other_bells_need_all_their_descriptors_to_ring() -> None:
    for kind in (EventDoorbell, PipeDoorbell):
        bell = kind()
        assert bell.ringing_descriptors() == bell.descriptors()
        bell.close()
