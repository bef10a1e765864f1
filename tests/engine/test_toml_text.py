"""TOML written as it was read."""

import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine import toml_text

ROOT = Path(__file__).resolve().parents[2]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    TEXT,
    st.datetimes(),
    st.dates(),
    st.times(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_what_is_written_reads_as_what_was_read(table: dict[str, object]) -> None:
    assert tomllib.loads(toml_text.document(table)) == table


def test_a_fleet_file_gets_headers_for_its_tables_and_keeps_the_order_of_agents() -> None:
    data = (ROOT / "examples/vote/fleet.toml").read_text()
    text = toml_text.document(tomllib.loads(data))
    heads = [line for line in text.splitlines() if line.startswith("[")]
    assert heads == [
        *("[fleet]", "[schedule]", "[models]", "[models.default]"),
        *("[agents]", "[agents.solver]", "[agents.greedy]", "[agents.judge]"),
    ]
    assert "config = { temperature = 1.0 }" in text
    assert list(tomllib.loads(text)["agents"]) == ["solver", "greedy", "judge"]


def test_numbers_that_json_does_not_have_are_written_as_toml_does() -> None:
    assert toml_text.inline([math.inf, -math.inf, 1e22]) == "[inf, -inf, 1e+22]"
    assert math.isnan(tomllib.loads(f"x = {toml_text.inline(math.nan)}")["x"])


def test_a_value_that_toml_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        toml_text.document({"x": None})
