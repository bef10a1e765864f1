"""Draw the 200 problems of questions.jsonl.

The file is committed; this script says where it came from and makes it again, byte for byte.
A problem and its twin (``a+b`` and ``b+a``) count as one, so no problem is asked twice in
disguise and train.py can keep both out of the training set.

    python make_questions.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path

QUESTIONS = 200
SEED = 2024
TERM_MIN = 100
TERM_MAX = 999
PATH = Path(__file__).with_name("questions.jsonl")


def draw(count: int, seed: int) -> list[tuple[int, int]]:
    """Draw ``count`` pairs of three-digit numbers, no two of them twins.

    Args:
        count: Pairs to draw.
        seed: Seed of the standard library's generator, whose integers are the same everywhere.

    Returns:
        The pairs in the order drawn.
    """
    rng = random.Random(seed)
    pairs: dict[tuple[int, int], tuple[int, int]] = {}
    while len(pairs) < count:
        pair = (rng.randint(TERM_MIN, TERM_MAX), rng.randint(TERM_MIN, TERM_MAX))
        pairs.setdefault((min(pair), max(pair)), pair)
    return list(pairs.values())


def lines(pairs: list[tuple[int, int]]) -> str:
    """Write the pairs as JSON Lines: id, question, answer."""
    rows = [
        {"id": f"q{number:03d}", "question": f"{a}+{b}=", "answer": a + b}
        for number, (a, b) in enumerate(pairs, start=1)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    PATH.write_text(lines(draw(QUESTIONS, SEED)), encoding="utf-8")
