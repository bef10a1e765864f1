"""Dag: an item is sent back, and everything behind where it goes begins anew."""

from itertools import permutations
from typing import Any

import pytest

from lockstep.engine.record import PEER_NONE

DAG = "policy = 'dag'"
WRITER, EDITOR, CRITIC, PRINTER = range(4)
LOOP = """
writer
editor after = ['writer']
critic after = ['editor']; back = ['writer']; passes_max = 2
printer after = ['critic']
"""


def emit(schedule: Any, agent: int, payload: bytes, peer: int = PEER_NONE, item: int = 1) -> None:
    assert schedule.may_emit(agent, item, peer, False) == ""
    schedule.emitted(agent, item, payload, peer)


def test_an_item_goes_round_as_often_as_it_may(routed: Any) -> None:
    schedule, host = routed(DAG, LOOP)
    schedule.admit(1, b"in")
    assert host.log() == [(WRITER, 1, b"in", PEER_NONE, 0)]
    for turn in (0, 1):
        emit(schedule, WRITER, b"draft")
        emit(schedule, EDITOR, b"edited")
        assert host.log() == [
            (EDITOR, 1, b"draft", WRITER, turn),
            (CRITIC, 1, b"edited", EDITOR, turn),
        ]
        emit(schedule, CRITIC, b"no", peer=WRITER)
        assert host.log() == [(WRITER, 1, b"no", CRITIC, turn + 1)]
        assert schedule.holders(1) == [WRITER]
    emit(schedule, WRITER, b"last")
    emit(schedule, EDITOR, b"edited")
    emit(schedule, CRITIC, b"yes")
    emit(schedule, PRINTER, b"book")
    assert host.log() == [
        (EDITOR, 1, b"last", WRITER, 2),
        (CRITIC, 1, b"edited", EDITOR, 2),
        (PRINTER, 1, b"yes", CRITIC, 2),
        ("finished", 1, (PRINTER, b"book")),
    ]


def test_an_item_that_is_sent_back_too_often_fails(routed: Any) -> None:
    schedule, host = routed(DAG, "a\nb after = ['a']; back = ['a']")
    schedule.admit(1, b"in")
    for _ in range(2):
        emit(schedule, 0, b"x")
        assert schedule.may_emit(1, 1, 0, False) == ""
        emit(schedule, 1, b"no", peer=0)
    assert host.log()[-1] == (
        "failed", 1, "agent b sent it back to a more than passes_max = 1 times"
    )  # fmt: skip


def test_passes_are_counted_for_each_item(routed: Any) -> None:
    schedule, host = routed(DAG, "a\nb after = ['a']; back = ['a']")
    for item in (1, 2):
        schedule.admit(item, b"in")
        emit(schedule, 0, b"x", item=item)
        emit(schedule, 1, b"no", peer=0, item=item)
        emit(schedule, 0, b"x", item=item)
    emit(schedule, 1, b"yes", item=1)
    emit(schedule, 1, b"no", peer=0, item=2)
    assert [entry[:2] for entry in host.log()[-2:]] == [("finished", 1), ("failed", 2)]


def test_each_agent_emits_once_in_each_pass(routed: Any) -> None:
    schedule, _ = routed(DAG, LOOP)
    schedule.admit(1, b"in")
    emit(schedule, WRITER, b"x")
    emit(schedule, EDITOR, b"x")
    emit(schedule, CRITIC, b"no", peer=WRITER)
    assert schedule.may_emit(CRITIC, 1, PEER_NONE, False) == "the agent was not given it yet"
    assert schedule.may_emit(EDITOR, 1, PEER_NONE, False) == "the agent was not given it yet"
    emit(schedule, WRITER, b"x")
    assert schedule.may_emit(WRITER, 1, PEER_NONE, False) == "a second EMIT for it"


def test_the_last_agent_may_send_back_instead_of_giving_its_output(routed: Any) -> None:
    schedule, host = routed(DAG, "a\nb after = ['a']; back = ['a']")
    schedule.admit(1, b"in")
    emit(schedule, 0, b"x")
    emit(schedule, 1, b"no", peer=0)
    emit(schedule, 0, b"y")
    host.log()
    emit(schedule, 1, b"yes")
    assert host.log() == [("finished", 1, (1, b"yes"))]


SIDE = """
writer
critic after = ['writer']; back = ['writer']
log after = ['writer']
"""


def test_an_item_goes_back_when_nobody_behind_holds_it_any_more(routed: Any) -> None:
    schedule, host = routed(DAG, SIDE)
    schedule.admit(1, b"in")
    emit(schedule, 0, b"x")
    host.log()
    emit(schedule, 1, b"no", peer=0)
    assert host.log() == []
    assert schedule.holders(1) == [2]
    emit(schedule, 2, b"logged")  # Of the old pass: it is no output any more.
    assert host.log() == [(0, 1, b"no", 1, 1)]
    emit(schedule, 0, b"y")
    emit(schedule, 2, b"logged again")
    emit(schedule, 1, b"yes")
    assert host.log()[-1] == ("finished", 1, (1, b"yes"), (2, b"logged again"))


def test_nobody_behind_is_woken_while_an_item_waits_to_go_back(routed: Any) -> None:
    schedule, host = routed(DAG, f"{SIDE}facts\nmix after = ['facts', 'writer']")
    schedule.admit(1, b"in")
    emit(schedule, 0, b"x")
    emit(schedule, 1, b"no", peer=0)
    host.log()
    emit(schedule, 3, b"F")  # With this mix had all it waits for.
    assert host.log() == []
    emit(schedule, 2, b"logged")
    assert host.log() == [(0, 1, b"no", 1, 1)]
    emit(schedule, 0, b"y")
    assert host.log()[-2:] == [(4, 1, b"y", 0, 1), (4, 1, b"F", 3, 1)]


def test_an_item_that_waits_to_go_back_may_fail_elsewhere(routed: Any) -> None:
    schedule, host = routed(DAG, f"{SIDE}facts\ncheck after = ['facts']")
    schedule.admit(1, b"in")
    emit(schedule, 0, b"x")
    emit(schedule, 1, b"no", peer=0)
    host.log()
    host.dead = [4]
    emit(schedule, 3, b"F")
    assert host.log() == [("failed", 1, "dead")]


def test_an_item_that_waits_to_go_back_is_not_finished_by_a_last_emit(routed: Any) -> None:
    schedule, host = routed(
        DAG,
        """
        writer
        fast
        critic after = ['writer']; back = ['writer']
        slow after = ['writer']
        printer after = ['fast', 'critic', 'slow']; join = 'any'
        """,
    )
    schedule.admit(1, b"in")
    emit(schedule, 1, b"F")
    emit(schedule, 0, b"x")
    emit(schedule, 2, b"no", peer=0)
    emit(schedule, 4, b"printed too early")
    host.log()
    emit(schedule, 3, b"S")
    assert host.log() == [(0, 1, b"no", 2, 1), (4, 1, b"F", 1, 1)]


def test_what_was_done_elsewhere_stands(routed: Any) -> None:
    schedule, host = routed(
        DAG,
        """
        facts
        writer
        critic after = ['writer', 'facts']; back = ['writer']
        """,
    )
    schedule.admit(1, b"in")
    emit(schedule, 0, b"F")
    emit(schedule, 1, b"x")
    host.log()
    emit(schedule, 2, b"no", peer=1)
    assert host.log() == [(1, 1, b"no", 2, 1)]
    emit(schedule, 1, b"y")
    # The facts are joined once more; their agent is not asked again.
    assert host.log() == [(2, 1, b"F", 0, 1), (2, 1, b"y", 1, 1)]


def test_a_way_that_was_skipped_elsewhere_is_not_waited_for_in_the_next_pass(routed: Any) -> None:
    schedule, host = routed(
        DAG,
        """
        writer
        router
        facts after = ['router']
        other after = ['router']
        critic after = ['writer', 'facts']; back = ['writer']
        """,
    )
    schedule.admit(1, b"in")
    emit(schedule, 1, b"R", peer=3)
    emit(schedule, 0, b"x")
    emit(schedule, 4, b"no", peer=0)
    host.log()
    emit(schedule, 0, b"y")
    assert host.log() == [(4, 1, b"y", 0, 1)]


def test_a_way_that_was_skipped_is_open_again(routed: Any) -> None:
    schedule, host = routed(
        DAG,
        """
        a
        b after = ['a']
        c after = ['a']
        d after = ['b', 'c']; back = ['a']
        """,
    )
    schedule.admit(1, b"in")
    emit(schedule, 0, b"x", peer=1)
    emit(schedule, 1, b"B")
    emit(schedule, 3, b"no", peer=0)
    emit(schedule, 0, b"y", peer=2)
    host.log()
    emit(schedule, 2, b"C")
    assert host.log() == [(3, 1, b"C", 2, 1)]


TWO = """
outline
writer after = ['outline']
critic after = ['writer']; back = ['writer']; replicas = 2
reader after = ['writer']; back = ['outline', 'writer']
"""


@pytest.mark.parametrize("order", list(permutations([2, 3, 4])))
def test_what_several_send_back_comes_together_whoever_was_first(
    routed: Any, order: tuple[int, ...]
) -> None:
    schedule, host = routed(DAG, TWO)
    schedule.admit(1, b"in")
    emit(schedule, 0, b"O")
    emit(schedule, 1, b"W")
    host.log()
    for agent in order:
        emit(schedule, agent, b"%d" % agent, peer=1)
    assert host.log() == [(1, 1, b"%d" % agent, agent, 1) for agent in (2, 3, 4)]


@pytest.mark.parametrize("order", list(permutations([2, 3, 4])))
def test_what_goes_to_a_later_agent_joins_what_wakes_it(
    routed: Any, order: tuple[int, ...]
) -> None:
    schedule, host = routed(DAG, TWO)
    schedule.admit(1, b"in")
    emit(schedule, 0, b"O")
    emit(schedule, 1, b"W")
    host.log()
    ways = {2: (b"style", 1), 3: (b"good", PEER_NONE), 4: (b"all wrong", 0)}
    for agent in order:
        emit(schedule, agent, *ways[agent])
    assert host.log() == [(0, 1, b"all wrong", 4, 1)]
    emit(schedule, 0, b"O2")
    assert host.log() == [(1, 1, b"O2", 0, 1), (1, 1, b"style", 2, 1)]


def test_what_joins_a_later_agent_waits_for_it_over_another_loop(routed: Any) -> None:
    schedule, host = routed(
        DAG,
        """
        topic
        judge after = ['topic']; back = ['topic']
        outline after = ['topic']
        writer after = ['outline']
        critic after = ['writer']; back = ['writer']
        reader after = ['writer']; back = ['outline']
        """,
    )
    schedule.admit(1, b"in")
    for agent in (0, 2, 3):
        emit(schedule, agent, b"x")
    emit(schedule, 4, b"style", peer=3)
    emit(schedule, 5, b"all wrong", peer=2)  # Now the outline is made again, before the writing.
    emit(schedule, 1, b"off topic", peer=0)  # And now the topic, before the outline.
    emit(schedule, 2, b"x")
    emit(schedule, 0, b"y")
    host.log()
    emit(schedule, 2, b"z")
    assert host.log() == [(3, 1, b"z", 2, 2), (3, 1, b"style", 4, 2)]


def test_what_was_sent_back_before_is_not_lost_by_what_is_sent_back_later(routed: Any) -> None:
    schedule, host = routed(
        DAG,
        """
        facts
        outline
        writer after = ['outline']
        critic after = ['writer', 'facts']; join = 'any'; back = ['writer']; passes_max = 2
        reader after = ['writer']; back = ['outline']
        """,
    )
    schedule.admit(1, b"in")
    for agent in (0, 1, 2):
        emit(schedule, agent, b"x")
    emit(schedule, 3, b"one", peer=2)
    host.log()
    emit(schedule, 4, b"all wrong", peer=1)
    assert host.log() == [(1, 1, b"all wrong", 4, 1), (3, 1, b"x", 0, 1)]
    emit(schedule, 3, b"two", peer=2)  # The writer was to wait for the outline: not any more.
    assert host.log() == [(2, 1, b"one", 3, 2), (2, 1, b"two", 3, 2), (3, 1, b"x", 0, 2)]


def test_a_loop_within_a_loop_keeps_its_own_count(routed: Any) -> None:
    schedule, host = routed(
        DAG,
        """
        a
        b after = ['a']
        c after = ['b']; back = ['b']
        d after = ['c']; back = ['a']
        """,
    )
    schedule.admit(1, b"in")
    emit(schedule, 0, b"")
    emit(schedule, 1, b"")
    emit(schedule, 2, b"no", peer=1)
    emit(schedule, 1, b"")
    emit(schedule, 2, b"")
    host.log()
    emit(schedule, 3, b"no", peer=0)
    emit(schedule, 0, b"")
    # a came back once; b twice, once in each loop.
    assert host.log() == [(0, 1, b"no", 3, 1), (1, 1, b"", 0, 2)]
    emit(schedule, 1, b"")
    # c has used its pass: the loops are bounded together, not multiplied.
    host.log()
    emit(schedule, 2, b"no", peer=1)
    assert host.log()[0][0] == "failed"


def test_dealt_replicas_keep_their_item_in_every_pass(routed: Any) -> None:
    schedule, host = routed(DAG, "a replicas = 3; input = 'deal'\nb after = ['a']; back = ['a']")
    schedule.admit(1, b"in")
    schedule.admit(2, b"in")
    emit(schedule, 1, b"x", item=2)
    host.log()
    emit(schedule, 3, b"no", peer=0, item=2)  # Whichever is named, it goes to whom it was dealt.
    assert host.log() == [(1, 2, b"no", 3, 1)]


def test_a_fast_path_is_offered_again_in_every_pass(routed: Any) -> None:
    schedule, host = routed(
        DAG,
        """
        cache
        writer
        first after = ['cache', 'writer']; join = 'any'
        critic after = ['writer']; back = ['writer']
        """,
    )
    schedule.admit(1, b"in")
    emit(schedule, 0, b"hit")
    emit(schedule, 1, b"x")
    emit(schedule, 2, b"fast")
    host.log()
    emit(schedule, 3, b"no", peer=1)
    assert host.log() == [(1, 1, b"no", 3, 1), (2, 1, b"hit", 0, 1)]
