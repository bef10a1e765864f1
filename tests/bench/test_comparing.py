"""`bench compare`: what changed beyond noise, and how loudly two machines are told."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchreports import group, report

from lockstep.bench import told
from lockstep.bench.comparing import Comparison, compare, load, verdict
from lockstep.engine.errors import UsageError


def ratio(low: float, median: float, high: float) -> dict[str, float]:
    return {"low": low, "median": median, "high": high}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ((1.0, 1.1, 1.2), (1.3, 1.4, 1.5), "better"),
        ((1.3, 1.4, 1.5), (1.0, 1.1, 1.2), "worse"),
        ((1.0, 1.1, 1.2), (1.2, 1.3, 1.4), "within noise"),  # They touch.
        ((1.0, 1.5, 2.0), (1.4, 1.5, 1.6), "within noise"),
    ],
)
def test_a_ratio_has_changed_when_its_intervals_do_not_touch(
    before: tuple[float, float, float], after: tuple[float, float, float], said: str
) -> None:
    assert verdict(ratio(*before), ratio(*after)) == said


BEFORE = report({
    "shm": group({"pipe": (2.0, 2.1, 2.2), "queue": (3.0, 3.1, 3.2), "old": (1, 1, 1)}, rate=100.0),
    "tax": group({"strict": (0.9, 0.95, 1.0)}),
})  # fmt: skip
AFTER = report({
    "shm": group({"pipe": (1.0, 1.1, 1.2), "queue": (4.0, 4.1, 4.2), "new": (1, 1, 1)}, rate=80.0),
    "tax": group({"strict": (0.92, 0.96, 1.0)}),
})  # fmt: skip


def compared(after: dict[str, Any] = AFTER, before: dict[str, Any] = BEFORE) -> Comparison:
    return compare(before, after, ("a", "b"))


def test_the_worst_comes_first_and_what_is_in_one_alone_last() -> None:
    found = [(c.name, c.verdict, c.factor) for c in compared().changes]
    assert found == [
        ("pipe", "worse", 0.5238), ("queue", "better", 1.323), ("strict", "within noise", 1.011),
        ("new", "new", None), ("old", "gone", None),
    ]  # fmt: skip
    assert told.verdict_line(compared()) == "1 worse, 1 better, 1 within noise, 1 new, 1 gone"


def test_absolutes_are_set_side_by_side_on_one_machine_alone() -> None:
    assert [a[:4] for a in compared().absolutes] == [("shm", "rate", 100.0, 80.0)]
    elsewhere = {**AFTER, "machine": {**AFTER["machine"], "cpu": "B", "cores": 64}}
    found = compared(elsewhere)
    assert found.absolutes == [] and found.machines == ["cpu: A -> B", "cores: 2 -> 64"]
    assert len(found.changes) == 5
    text = told.comparison_text(found)
    assert "OTHER MACHINE: cpu: A -> B" in text and told.OTHER_MACHINE in text
    assert "OTHER MACHINE" not in told.comparison_text(compared())
    assert told.OTHER_MACHINE in told.comparison_page(found)


def test_another_load_of_the_machine_is_no_difference() -> None:
    busy = {**AFTER, "machine": {**AFTER["machine"], "load_1m": 9.9}}
    assert compared(busy).machines == [] and compared(busy).others == []


def test_other_versions_sizes_and_peers_are_named() -> None:
    after = {**AFTER, "quick": True, "commit": "def", "lockstep": "0.2",
             "machine": {**AFTER["machine"], "packages": {"numpy": "2.3"}}}  # fmt: skip
    after["groups"] = {
        **after["groups"],
        "tax": {**after["groups"]["tax"], "runs": 1, "notes": {"ray": "2"}},
    }
    assert compared(after).others == [
        "packages: numpy 2.2 -> numpy 2.3",
        "lockstep: 0.1 -> 0.2",
        "commit: abc -> def",
        "quick: False -> True",
        "tax, ray: nothing -> 2",
        "measured once, so that noise between runs is not in its intervals: tax of the second",
    ]


def test_a_report_is_read_from_a_folder_a_file_or_what_a_group_printed(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(BEFORE))
    assert load(tmp_path) == load(tmp_path / "report.json") == BEFORE
    one = {"group": "shm", "machine": BEFORE["machine"], **BEFORE["groups"]["shm"]}
    (tmp_path / "shm.json").write_text(json.dumps(one))
    found = compare(load(tmp_path / "shm.json"), AFTER, ("a", "b"))
    assert [c.name for c in found.changes if c.verdict == "worse"] == ["pipe"]
    assert found.others[-1].endswith("shm of the first")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"machine": {}, "groups": {"a": {"ratios": {"x": {"median": "1"}}}}}',
     '{"machine": {}, "groups": [1]}', '{"group": [], "machine": {}}'],
)  # fmt: skip
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"x\.json: is no report"):
        load(path)
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none")


def test_numbers_that_cannot_be_compared_are_no_report(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for found in (
        group({"a": (0.0, 1.0, 2.0)}),
        group({"a": (-1.0, -0.5, 2.0)}),
        group({"a": (1.0, 3.0, 2.0)}),
        group({"a": (1.0, 1.0, float("inf"))}),
        group({}, rate=10**400),
        {**group({}), "results": {"rate": {"value": 1.0}}},
        {**group({}), "group": 3},
    ):
        path.write_text(json.dumps(report({"shm": found})))
        with pytest.raises(UsageError, match=r"x\.json: is no report"):
            load(path)


def test_text_and_page_of_a_session_say_the_same() -> None:
    whole = report(BEFORE["groups"], failed={"gpu": "no GPU is here"})
    text, page = told.session_text(whole), told.session_page(whole)
    for word in ("pipe", "strict", "2.1 x", "no GPU is here", "A, 2 cores", "numpy 2.2",
                 "shm: 3 runs, stable: the last 3 lie within 2 % of their middle"):  # fmt: skip
        assert word in text and word in page, word


def test_hostile_names_in_a_report_stay_words() -> None:
    bad = report({"shm": group({"<script>x": (1, 1, 1)}, **{"<b>": 1.0})})
    for page in (told.session_page(bad), told.comparison_page(compared(bad, bad))):
        assert "<script>x" not in page and "&lt;script&gt;x" in page
