"""Colours: readable on both papers, and apart for who sees fewer of them."""

import re
from itertools import combinations

import pytest

from lockstep.workers.pictures.svg import COLOURS, STYLE

PAIRS = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", STYLE.read_text(encoding="utf-8"))
SCHEMES = [{name: pair[place] for name, *pair in PAIRS} for place in (0, 1)]
# Of linear RGB, as people without one kind of cone see it: Machado, Oliveira and Fernandes 2009,
# severity 1.
BLINDNESS = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
               (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
               (-0.011820, 0.042940, 0.968881)),
}  # fmt: skip


def linear(colour: str) -> list[float]:
    values = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]


def contrast(a: str, b: str) -> float:
    """As WCAG 2 defines it."""
    light, dark = sorted(
        (sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear(c), strict=True)) + 0.05
         for c in (a, b)), reverse=True
    )  # fmt: skip
    return light / dark


def lab(rgb: list[float]) -> tuple[float, float, float]:
    """CIE L*a*b* of linear RGB, D65."""
    x = (0.4124 * rgb[0] + 0.3576 * rgb[1] + 0.1805 * rgb[2]) / 0.9505
    y = 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]
    z = (0.0193 * rgb[0] + 0.1192 * rgb[1] + 0.9505 * rgb[2]) / 1.089
    fx, fy, fz = (max(v, 0.0) ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116
                  for v in (x, y, z))  # fmt: skip
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def seen(colour: str, kind: str) -> tuple[float, float, float]:
    rgb = linear(colour)
    return lab([sum(w * v for w, v in zip(row, rgb, strict=True)) for row in BLINDNESS[kind]])


@pytest.mark.parametrize("scheme", SCHEMES, ids=["light", "dark"])
def test_words_and_marks_stand_out_from_the_paper(scheme: dict[str, str]) -> None:
    paper = scheme["paper"]
    assert min(contrast(scheme[name], paper) for name in ("ink", "faint")) >= 4.5
    assert min(contrast(scheme[f"c{n}"], paper) for n in range(COLOURS)) >= 3


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("scheme", SCHEMES, ids=["light", "dark"])
def test_colours_are_apart_for_who_sees_fewer(scheme: dict[str, str], kind: str) -> None:
    places = [seen(scheme[f"c{n}"], kind) for n in range(COLOURS)]
    apart = [sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5
             for a, b in combinations(places, 2)]  # fmt: skip
    assert min(apart) >= 20  # Of CIE 1976; 2.3 can just be told apart.
