"""Strict JSON: what people and guests may not write."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.strict_json import DEPTH_MAX, dumps, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(VALUES)
def test_values_survive_the_canonical_form(value: object) -> None:
    assert loads(dumps(value)) == value
    assert loads(dumps(value).decode()) == value


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(), max_size=5))
def test_equal_values_have_equal_canonical_bytes(value: dict[str, int]) -> None:
    assert dumps(dict(reversed(value.items()))) == dumps(value)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_anything_is_parsed_or_a_value_error(data: bytes | str) -> None:
    try:
        loads(data)
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b'{"a": 1, "b": 2, "a": 1}', "key 'a' appears twice"),
        (b'[{"x": {"a": 1, "a": 1}}]', "key 'a' appears twice"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b"1" * 401, "a number of 401 digits"),
        (rb'"\ud800"', "half a surrogate pair"),
        (rb'{"\udfff": 1}', "half a surrogate pair"),
        (b"'a'", "Expecting value"),
        (b"[1,]", "Illegal trailing comma|Expecting value"),
        (b'"a\nb"', "Invalid control character"),
        (b"\xef\xbb\xbf{}", "BOM"),
    ],
)
def test_what_is_not_strict_is_refused_with_its_reason(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loads(data)


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert loads(rb'"\ud83d\ude00"') == "\U0001f600"


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded(open_: str, close: str) -> None:
    inner = "1"
    assert loads(open_ * DEPTH_MAX + inner + close * DEPTH_MAX)
    with pytest.raises(ValueError, match=f"nested deeper than {DEPTH_MAX}"):
        loads(open_ * (DEPTH_MAX + 1) + inner + close * (DEPTH_MAX + 1))


def test_a_hundred_thousand_brackets_do_not_reach_the_stack() -> None:
    with pytest.raises(ValueError, match="nested deeper"):
        loads(b"[" * 100_000)


def test_brackets_in_strings_and_side_by_side_do_not_nest() -> None:
    text = json.dumps(["[" * 100, '\\"[' * 100, [{}] * 100])
    assert loads(text) == json.loads(text)


def test_the_canonical_form_is_sorted_utf8_without_spaces() -> None:
    assert dumps({"b": [1, "ü"], "a": None}) == '{"a":null,"b":[1,"ü"]}'.encode()


def test_the_canonical_form_has_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps(float("nan"))
