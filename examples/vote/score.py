"""Score a run of the vote fleet: one sample, greedy and majority vote, each measured.

    python examples/vote/score.py [RUN]

Without RUN: the newest ``runs/vote-*``. Reads the run's own input and output, nothing else.
"""

import json
import sys
from pathlib import Path
from typing import Any


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def score(run: Path) -> dict[str, float]:
    """Shares of right answers, 0 to 1.

    Args:
        run: Folder of a finished run.

    Returns:
        ``sample`` (mean over all samples), ``greedy``, ``vote`` and ``questions`` (their number).
    """
    answers = {item["id"]: item["answer"] for item in lines(run / "input.jsonl")}
    right = dict.fromkeys(("sample", "greedy", "vote"), 0.0)
    for line in lines(run / "output.jsonl"):
        if "error" in line:
            continue  # A failed item counts as wrong.
        answer, said = answers[line["id"]], line["payload"]
        votes = said["votes"]
        right["sample"] += sum(vote == answer for vote in votes) / len(votes)
        right["greedy"] += said["greedy"] == answer
        right["vote"] += said["answer"] == answer
    count = len(answers)
    return {name: value / count for name, value in right.items()} | {"questions": count}


def main(arguments: list[str]) -> int:
    """Print the three accuracies, and whether voting was worth it."""
    found = sorted(Path("runs").glob("vote-*"), key=lambda path: path.stat().st_mtime)
    runs = [Path(argument) for argument in arguments] or found[-1:]
    if len(runs) != 1:
        print("usage: score.py [RUN]; there is no runs/vote-* here", file=sys.stderr)
        return 2
    try:
        result = score(runs[0])
    except (OSError, ValueError, KeyError) as error:
        print(f"score.py: {runs[0]}: no finished run of the vote fleet: {error}", file=sys.stderr)
        return 2
    print(f"accuracy on {result['questions']:.0f} questions")
    for name, what in (("sample", "one sample"), ("greedy", "greedy"), ("vote", "vote of five")):
        print(f"  {what:<13}{result[name]:6.1%}")
    gain = (result["vote"] - result["sample"]) * 100
    against = (result["vote"] - result["greedy"]) * 100
    print(
        f"  this run: voting gains {gain:+.1f} points over one sample, {against:+.1f} over greedy"
    )
    print("  over 20 seeds: vote 82.8 %, one sample 74.8 %, greedy 84.0 %:", end=" ")
    print("voting does not beat greedy")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
