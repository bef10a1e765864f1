"""Items: input lines, admission, and outputs in input order."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.errors import UsageError
from lockstep.engine.items import InputItem, ItemBook, parse_input

NAMES = ["solver.0", "jüdge"]


def book(count: int = 3, in_flight_max: int = 64, reordered_max: int = 64) -> ItemBook:
    inputs = [InputItem(f"id{n}", b"%d" % n) for n in range(1, count + 1)]
    return ItemBook(inputs, NAMES, in_flight_max, reordered_max)


def line_of(payload: bytes) -> bytes:
    items = book(1)
    items.admit()
    items.finish(1, (4, 2), [(0, payload)])
    (line,) = items.take_lines()
    return line


# -- input ----------------------------------------------------------------------------------------


def test_lines_become_items_with_their_own_bytes() -> None:
    data = b'{"id": "x", "q": 1.0}\r\n\n  {"q":2}  \n{"id": 7}'
    assert parse_input(data, "in", 100) == [
        InputItem("x", b'{"id": "x", "q": 1.0}'),
        InputItem(3, b'{"q":2}'),
        InputItem(7, b'{"id": 7}'),
    ]


def test_no_lines_are_no_items() -> None:
    assert parse_input(b"", "in", 100) == []
    assert parse_input(b"\n \r\n\n", "in", 100) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "in:2: not valid JSON: "),
        (b"[1]", "in:2: found b'[1]', expected a JSON object"),
        (b"1", "in:2: found b'1', expected a JSON object"),
        (b'{"a":1,"a":2}', "in:2: not valid JSON: key 'a' appears twice"),
        (b'{"a":NaN}', "in:2: not valid JSON: NaN is not JSON"),
        (b'{"a":"\xff"}', "in:2: not valid JSON: not UTF-8 at byte 6"),
        (rb'{"id":"\ud800"}', "in:2: not valid JSON: half a surrogate pair in a string"),
        (b'{"id":null}', "in:2: id is None, expected a string or an integer"),
        (b'{"id":1.0}', "in:2: id is 1.0, expected a string or an integer"),
        (b'{"id":true}', "in:2: id is True, expected a string or an integer"),
        (b'{"id":"first"}', "in:2: id 'first' is that of line 1 already"),
        (b'{"a":"' + b"x" * 100 + b'"}', "in:2: 108 bytes, at most 100 fit a record"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(line: bytes, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_input(b'{"id":"first"}\n' + line, "in", 100)
    assert str(error.value).startswith(message)


def test_a_line_of_exactly_the_limit_is_taken() -> None:
    assert len(parse_input(b'{"a":123}', "in", 9)) == 1


def test_a_default_id_may_not_repeat_a_given_one() -> None:
    with pytest.raises(UsageError, match="in:2: id 2 is that of line 1 already"):
        parse_input(b'{"id":2}\n{}', "in", 100)


def test_a_number_and_its_text_are_two_ids() -> None:
    assert [i.id for i in parse_input(b'{"id":1}\n{"id":"1"}', "in", 100)] == [1, "1"]


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_items_or_a_usage_error(data: bytes) -> None:
    try:
        parse_input(data, "in", 50)
    except UsageError:
        pass


# -- admission and order --------------------------------------------------------------------------


def test_items_enter_in_input_order_until_enough_are_in_flight() -> None:
    items = book(4, in_flight_max=2)
    assert [items.admit(), items.admit()] == [(1, b"1"), (2, b"2")]
    assert not items.may_admit()
    items.finish(2, (0, 1), [])
    assert items.may_admit()
    assert items.admit() == (3, b"3")
    assert items.in_flight() == [1, 3]


def test_a_failed_item_leaves_the_count() -> None:
    items = book(2, in_flight_max=1)
    items.admit()
    items.fail(1, "why")
    assert items.may_admit()
    assert (items.finished, items.failed) == (0, 1)


def test_finished_items_that_wait_for_an_earlier_one_stop_admission_not_emission() -> None:
    items = book(5, reordered_max=2)
    for _ in range(4):
        items.admit()
    items.finish(2, (0, 1), [(0, b"2")])
    assert items.may_admit()
    items.finish(3, (0, 1), [(0, b"3")])
    assert items.take_lines() == []
    assert not items.may_admit()
    items.finish(4, (0, 1), [(0, b"4")])  # Beyond the bound: an emission is never refused.
    items.finish(1, (0, 1), [(0, b"1")])
    assert [json.loads(line)["payload"] for line in items.take_lines()] == [1, 2, 3, 4]
    assert items.may_admit()


@given(st.permutations(range(1, 7)), st.sets(st.integers(1, 6)))
def test_outputs_come_in_input_order_and_every_item_is_accounted_for(
    order: list[int], failing: set[int]
) -> None:
    items = book(6)
    for _ in range(6):
        items.admit()
    lines: list[bytes] = []
    for item in order:
        if item in failing:
            items.fail(item, "why")
        else:
            items.finish(item, (0, 1), [(0, b"1"), (1, b"2")])
        lines += items.take_lines()
    expected = [n for n in range(1, 7) for _ in range(1 if n in failing else 2)]
    assert [json.loads(line)["id"] for line in lines] == [f"id{n}" for n in expected]
    assert items.finished + items.failed == 6
    assert items.in_flight() == []


def test_an_item_that_never_entered_can_fail() -> None:
    items = book(1)
    items.fail(1, "why")
    assert items.take_lines() == [b'{"id":"id1","error":"why"}']


# -- lines ----------------------------------------------------------------------------------------


def test_json_is_embedded_as_the_agents_own_bytes() -> None:
    payload = b'{ "b":1.50,\t"a" : [1e2,"\xc3\xbc\\u00fc"] }'
    head = b'{"id":"id1","agent":"solver.0","tag":"4.2","payload":'
    assert line_of(payload) == head + payload + b"}"


def test_line_breaks_between_json_tokens_become_spaces() -> None:
    assert line_of(b'\r\n{"a":\n1,\r\n"b":2}\n').endswith(b'"payload":{"a": 1,  "b":2}}')


@pytest.mark.parametrize(
    "text", ["", "plain", 'with "quotes" and \\', "two\nlines", "ünï", "{broken", "NaN", "\0"]
)
def test_other_text_is_a_json_string(text: str) -> None:
    line = line_of(text.encode())
    assert b"\n" not in line
    assert json.loads(line)["payload"] == text


@pytest.mark.parametrize("payload", [b'{"a":1,"a":2}', rb'"\ud800"', b"[" * 65 + b"]" * 65])
def test_json_that_is_not_strict_is_text(payload: bytes) -> None:
    assert json.loads(line_of(payload))["payload"] == payload.decode()


def test_what_is_not_utf8_is_hexadecimal() -> None:
    assert json.loads(line_of(b"\xffab")) == {
        "id": "id1",
        "agent": "solver.0",
        "tag": "4.2",
        "payload_hex": "ff6162",
    }


@given(st.binary(max_size=60) | st.text(st.characters(codec="utf-8"), max_size=60).map(str.encode))
def test_whatever_the_payload_a_line_is_one_line_of_json(payload: bytes) -> None:
    line = line_of(payload)
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line)["id"] == "id1"


def test_agents_are_named_in_utf8_and_sinks_keep_their_order() -> None:
    items = book(1)
    items.admit()
    items.finish(1, (0, 1), [(1, b"1"), (0, b"2")])
    assert [json.loads(line)["agent"] for line in items.take_lines()] == ["jüdge", "solver.0"]
