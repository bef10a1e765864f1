"""Typed reading of tables: each error names place, key, what was found and what was expected."""

from collections.abc import Callable

import pytest

from lockstep.engine.errors import UsageError
from lockstep.engine.settings import Section, nearest

WHERE = "f.toml: [x]"


@pytest.mark.parametrize("value", [1, 5, 10])
def test_a_number_within_its_bounds_is_read(value: int) -> None:
    assert Section({"n": value}, WHERE).integer("n", 3, 1, 10) == value


@pytest.mark.parametrize("value", [0, 11, True, "5", 5.0, None, [5]])
def test_a_number_of_a_wrong_type_or_range_is_refused(value: object) -> None:
    with pytest.raises(UsageError) as error:
        Section({"n": value}, WHERE).integer("n", 3, 1, 10)
    assert str(error.value) == f"{WHERE}: n is {value!r}, expected a whole number from 1 to 10"


@pytest.mark.parametrize(
    ("read", "bad", "expected"),
    [
        (lambda s: s.text("k", None), ["", 1, None], "a string that is not empty"),
        (lambda s: s.text("k", "x"), ["", 1], "a string that is not empty"),
        (lambda s: s.choice("k", "a", ("a", "b")), ["c", 1, ["a"]], '"a" or "b"'),
        (lambda s: s.flag("k", True), [1, "true", None], "true or false"),
        (lambda s: s.texts("k", ()), ["a", [1], [""], {}], "a list of strings"),
        (lambda s: s.texts("k", ()), [["a", "b", "a"]], "no name twice"),
        (lambda s: s.table("k"), [1, [], "x"], "a table"),
    ],
)
def test_a_value_of_a_wrong_kind_is_refused(
    read: Callable[[Section], object], bad: list[object], expected: str
) -> None:
    for value in bad:
        with pytest.raises(UsageError) as error:
            read(Section({"k": value}, WHERE))
        assert str(error.value) == f"{WHERE}: k is {value!r}, expected {expected}"


def test_defaults_are_taken_when_a_key_is_missing() -> None:
    section = Section({}, WHERE)
    assert section.integer("a", 3, 1, 10) == 3
    assert section.text("b", "") == ""
    assert section.choice("c", "", ("x",)) == ""
    assert section.flag("d", False) is False
    assert section.texts("e", ("x",)) == ("x",)
    assert section.table("f") == {}
    section.done()


def test_a_default_may_lie_outside_the_bounds_of_what_is_given() -> None:
    assert Section({}, WHERE).integer("n", 0, 1, 9) == 0
    with pytest.raises(UsageError, match="n is 0, expected a whole number from 1 to 9"):
        Section({"n": 0}, WHERE).integer("n", 0, 1, 9)


def test_a_required_key_is_named_when_missing() -> None:
    with pytest.raises(UsageError, match=r"f\.toml: \[x\]: path is missing"):
        Section({}, WHERE).text("path", None)


def test_an_unknown_key_names_the_nearest_known_one() -> None:
    section = Section({"look_ahead": 1}, WHERE)
    section.integer("lookahead", 1, 0, 9)
    section.integer("credit", 4, 1, 9)
    with pytest.raises(UsageError, match="'look_ahead'; did you mean 'lookahead'"):
        section.done()


def test_an_unknown_key_that_is_near_to_nothing_lists_the_known_ones() -> None:
    assert nearest("zzz", ["b", "a"]) == "; known: a, b"
    assert nearest("zzz", []) == ""


@pytest.mark.parametrize("value", [1, "x", [], None])
def test_what_is_no_table_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="expected a table"):
        Section(value, WHERE)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(UsageError) as error:
        Section({"k": "x" * 1000}, WHERE).flag("k", True)
    assert len(str(error.value)) < 120


def test_a_value_that_has_no_text_is_told_by_its_type() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value, kind in [(16**5000, "int"), ([16**5000], "list"), (deep, "list")]:
        with pytest.raises(UsageError) as error:
            Section({"k": value}, WHERE).flag("k", True)
        assert f"k is a value too large to show ({kind}), expected true" in str(error.value)


def test_a_misspelt_required_key_is_named_before_it_is_missed() -> None:
    section = Section({"modul": "x.wasm"}, "f: [agents.a]")
    with pytest.raises(UsageError, match="unknown key 'modul'; did you mean 'module'"):
        section.text("module", None)
