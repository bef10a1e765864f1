"""The first difference of two histories, as a person is told of it."""

import struct

from lockstep.engine.compare import ended, first_difference
from lockstep.engine.record import Kind, Outcome, encode
from lockstep.engine.wire import FromEngine


def entry(step: int, micro: int, *records: bytes) -> bytes:
    return encode(Kind.TAG, id=step, peer=micro) + b"".join(records)


A = entry(0, 0, encode(Kind.TURN, peer=0))
B = entry(3, 1, encode(Kind.OUTCOME, b"yes", item=1, peer=0))
C = entry(3, 1, encode(Kind.OUTCOME, b"no!", item=1, peer=0))


def test_equal_histories_have_no_difference() -> None:
    assert first_difference([A, B], [A, B]) is None
    assert first_difference([], []) is None


def test_the_first_entry_that_differs_is_named_with_both_sides() -> None:
    found = first_difference([A, B, A], [A, C, A])
    assert found is not None
    assert (found.entry, found.tag) == (1, "3.1")
    assert "OUTCOME" in found.left and "b'yes'" in found.left and "b'no!'" in found.right


def test_a_difference_deep_inside_a_turn_is_opened() -> None:
    def woken(text: bytes) -> bytes:
        events = encode(Kind.ITEM, bytes(300), item=1) + encode(Kind.MESSAGE, text, id=9)
        return entry(5, 0, encode(Kind.TURN, events, id=2, peer=1))

    found = first_difference([woken(b"left side")], [woken(b"right one")])
    assert found is not None
    assert found.left.startswith("TURN id 2") and "MESSAGE id 9" in found.left
    assert "left side" in found.left and "right one" in found.right


def test_a_difference_far_into_a_payload_is_shown_where_it_is() -> None:
    left, right = bytes(5000) + b"X", bytes(5000) + b"Y"
    made = [[entry(1, 0, encode(Kind.OUTCOME, data))] for data in (left, right)]
    found = first_difference(*made)
    assert found is not None
    assert "from byte 4970" in found.left and "X" in found.left and "Y" in found.right


def test_an_extra_record_is_named() -> None:
    more = B + encode(Kind.FAILED, b"why", peer=2)
    found = first_difference([B], [more])
    assert found is not None
    assert found.left == "2 records" and found.right.startswith("FAILED id 0 peer 2 follows")
    turned = first_difference([more], [B])
    assert turned is not None and turned.right == "2 records"


def test_a_history_that_ends_early_differs_unless_a_prefix_is_enough() -> None:
    found = first_difference([A], [A, B])
    assert found is not None
    assert (found.entry, found.tag) == (1, "3.1")
    assert found.left == "the history has ended" and found.right == "goes on at 3.1"
    assert first_difference([A], [A, B], prefix=True) is None
    longer = first_difference([A, B], [A], prefix=True)
    assert longer is not None and longer.right == "the history has ended"


SLOT = struct.Struct("<HHIQqq")
CLOSED = SLOT.pack(FromEngine.STEP, 0, 0, 0, 4, 0)


def _step(*tokens: int, answer: bytes = b"") -> bytes:
    slots = [SLOT.pack(FromEngine.TOKEN, 0, n, n + 1, t, 9) for n, t in enumerate(tokens)]
    return encode(Kind.STEP, b"".join([*slots, CLOSED, answer]), id=4)


def test_of_a_step_the_slot_that_differs_is_shown() -> None:
    found = first_difference([A, _step(5, 6)], [A, _step(5, 7)])
    assert found is not None and (found.entry, found.tag) == (1, "step 4")
    assert found.left == "step 4: token ticket 2 slot 1 token 6 position 9"
    assert found.right == "step 4: token ticket 2 slot 1 token 7 position 9"
    fewer = first_difference([_step(5, 6)], [_step(5)])
    assert fewer is not None and fewer.right == "step 4: no more slots"
    later = first_difference([_step(5, 6), A], [_step(5, 6), B])
    assert later is not None and later.before[0] == "step 4: 2 slots of 2 tickets, 0 answers"


def test_of_a_step_the_answer_that_differs_is_shown() -> None:
    left, right = (encode(Kind.RESULT, text, id=3, peer=0) for text in (b"yes", b"no"))
    found = first_difference([_step(5, answer=left)], [_step(5, answer=right)])
    assert found is not None and found.left == "step 4: RESULT id 3 peer 0: b'yes'"
    assert found.right == "step 4: RESULT id 3 peer 0: b'no'"


def test_a_step_is_named_as_one() -> None:
    one, two = (encode(Kind.STEP, body, id=4) for body in (b"1", b"2"))
    found = first_difference([one], [two])
    assert found is not None and found.tag == "step 4"


def test_bytes_that_are_no_records_are_told_by_size() -> None:
    found = first_difference([B], [B + b"123"])
    assert found is not None and (found.left, found.right) == (
        f"{len(B)} bytes",
        f"{len(B) + 3} bytes",
    )


def test_an_entry_that_is_empty_or_no_records_has_no_place_but_is_told() -> None:
    for bad in (b"", b"123"):
        place = f"an entry of {len(bad)} bytes without a place"
        found = first_difference([bad], [B])
        assert found is not None and found.tag == place
        found = first_difference([B], [bad])
        assert found is not None and found.tag == "3.1"
        found = first_difference([A], [A, bad])
        assert found is not None and found.right == f"goes on at {place}"
        assert not ended([A, bad])


def test_only_a_history_with_a_stop_has_ended() -> None:
    assert not ended([]) and not ended([A, B])
    assert ended([A, entry(9, 9, encode(Kind.STOP))])


def test_the_equal_records_in_front_of_a_difference_are_shown() -> None:
    more = [encode(Kind.FAILED, text, peer=4) for text in (b"one", b"two", b"left", b"right")]
    found = first_difference([A, entry(3, 1, *more[:3])], [A, entry(3, 1, *more[:2], more[3])])
    assert found is not None
    assert [line.split(":")[0].split()[0] for line in found.before] == ["TAG", "FAILED", "FAILED"]
    assert "b'two'" in found.before[-1] and "b'left'" in found.left and "b'right'" in found.right
    ends = first_difference([A], [A, B])
    assert ends is not None and [line.split()[0] for line in ends.before] == ["TAG", "TURN"]
    torn = first_difference([b"123"], [B])
    assert torn is not None and torn.before == ()


def test_agents_are_named_where_their_names_are_given() -> None:
    found = first_difference([B], [B + encode(Kind.FAILED, b"why", peer=1)], names=["ann", "ben"])
    assert found is not None and found.right.startswith("FAILED id 0 ben follows 2 equal records")
    infer = [entry(1, 0, encode(Kind.EFFECT, encode(Kind.INFER, text, peer=0), item=9, peer=0))
             for text in (b"a", b"b")]  # fmt: skip
    found = first_difference([infer[0]], [infer[1]], names=["ann", "ben"])
    assert found is not None
    assert found.left == "EFFECT id 0 fuel 9 ann: INFER id 0 peer 0: b'a'"


def test_histories_that_go_on_at_different_tags_say_where_and_with_what() -> None:
    later = entry(4, 0, encode(Kind.OUTCOME, b"late", item=1, peer=0))
    found = first_difference([A, B], [A, later])
    assert found is not None
    assert found.left == "3.1: OUTCOME id 0 item 1 peer 0: b'yes'"
    assert found.right == "4.0: OUTCOME id 0 item 1 peer 0: b'late'"


def test_a_turn_that_ends_in_another_way_is_told_by_what_it_sent_and_how_it_ended() -> None:
    sent = encode(Kind.INFER, b"\x00" * 24 + b"2+2=", id=1, item=1, peer=0)
    many = [entry(1, 0, encode(Kind.EFFECT, sent * 6, item=9, peer=0))]
    none = [entry(1, 0, encode(Kind.EFFECT, item=7, peer=0, flags=Outcome.TRAPPED))]
    found = first_difference(many, none, names=["ann"])
    asked = ", ".join(["INFER id 1 item 1 peer 0"] * 4)
    assert found is not None
    assert found.left == f"EFFECT id 0 fuel 9 ann: {asked}, and 2 more"
    assert found.right == "EFFECT id 0 fuel 7 ann outcome trapped"
