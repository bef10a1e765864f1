"""Steps at equal batch: the inference process measured by itself, and the group of figures."""

from pathlib import Path

import pytest

from lockstep.bench import models, peers
from lockstep.bench.decoding import prompt
from lockstep.bench.groups import decode
from lockstep.bench.groups.decode import Contest, lockstep
from lockstep.bench.peers import Environment, Peer
from lockstep.engine.errors import UsageError

ABSENT = Peer("genai", Environment("none-of-the-kind", ("none==1",), 1))


def test_rounds_have_the_steps_that_were_asked_for_and_go_on_where_they_were(
    small_model: Path,
) -> None:
    with lockstep() as line:
        line.ask(do="open", model=str(small_model), threads=1, rows_max=4, tokens_max=64)
        for rows in (1, 3, 4):
            line.ask(do="begin", rows=rows, prompt=12, tokens=9)
            for steps in (2, 7):
                answer = line.ask(do="steps", steps=steps)
                assert len(answer["times_ns"]) == len(answer["engine_ns"]) == steps
                pairs = zip(answer["engine_ns"], answer["times_ns"], strict=True)
                assert all(0 < engine < whole for engine, whole in pairs)


def test_an_answer_that_is_over_has_no_further_step(small_model: Path) -> None:
    with lockstep() as line:
        line.ask(do="open", model=str(small_model), threads=1, rows_max=2, tokens_max=64)
        line.ask(do="begin", rows=2, prompt=5, tokens=3)
        assert len(line.ask(do="steps", steps=8)["times_ns"]) == 3
        measure = decode._ours(line, 4, [])
        with pytest.raises(UsageError, match="lockstep: 0 steps, expected 4"):
            measure()


def test_prompts_differ_from_row_to_row_and_are_a_token_a_character() -> None:
    texts = [prompt(row, 30) for row in range(4)]
    assert len(set(texts)) == 4 and {len(models.token_ids(text)) for text in texts} == {30}


def test_the_group_has_its_figures_and_names_the_peers_that_are_not_there(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {"genai": ABSENT, "slow": ABSENT}
    contest = Contest("int4", models.SMALL, models.small, two, not_quick=("slow",))
    monkeypatch.setattr(decode, "CONTESTS", (contest,))
    monkeypatch.setattr(decode, "PROBE_BYTES", 1 << 20)
    told: list[str] = []
    report = decode.run(True, told.append)
    assert "int4, batch 16: lockstep" in told
    assert sorted(report.ratios) == ["bandwidth_int4_b1"]
    assert 0 < report.results["python_share_b16"][0] < 1
    assert report.results["lockstep_int4_b1"][0] > 0 < report.results["lockstep_int4_b16"][0]
    names = [f"genai_int4_b{batch}" for batch in decode.BATCHES]
    get = ("none==1 is not there", "lockstep bench setup decode")
    left = [(f"slow_int4_b{n}", "--quick", "lockstep bench decode") for n in decode.BATCHES]
    assert report.skipped == [*((name, *get) for name in names), *left]


@pytest.mark.peers
@pytest.mark.parametrize(
    ("contest", "name"),
    [(contest, name) for contest in decode.CONTESTS for name in contest.peers],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_peers_take_the_model_of_135_million_parameters_step_by_step(
    contest: Contest, name: str
) -> None:
    peer = contest.peers[name]
    if not peer.environment.ready():
        pytest.skip("lockstep bench setup decode")
    model = str(contest.folder(lambda _: None))
    sizes = {"shape": contest.sizes, "threads": 2, "rows_max": 3, "tokens_max": 16}
    with peer.start() as line:
        line.ask(do="open", model=model, **sizes)
        for rows in (1, 3):
            ids = [models.token_ids(prompt(row, 8)) for row in range(rows)]
            line.ask(do="begin", rows=rows, prompt=8, ids=ids, tokens=4)
            assert len(line.ask(do="steps", steps=4)["times_ns"]) == 4


def test_the_peers_of_a_model_are_in_environments_that_setup_makes() -> None:
    made = {peer.environment for contest in decode.CONTESTS for peer in contest.peers.values()}
    assert made == {peers.GENAI, peers.HF, peers.LLAMACPP}
