"""A timeline: what each process did, and when. A still picture, and one to look into.

The picture is whole by itself: spans are drawn at its resolution. Beside it lies what it was drawn
from, so that timeline.js can draw any part of it in the same shapes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from lockstep.workers.pictures import svg
from lockstep.workers.pictures.bars import legend
from lockstep.workers.pictures.scale import Scale, is_number, seconds, ticks

SCRIPT = Path(__file__).with_name("timeline.js")
WIDTH, NAME, RIGHT = 960, 150, 12
ROW, BAR = 20, 14
TOP, FOOT = 10, 40
TRACKS_MAX = 48  # Of a picture: more would be stripes without names.
NEAR_PX = 0.4  # Spans so close to each other are drawn as one,
LEAST_PX = 0.5  # and none thinner.
HELD = "held the model back"  # The track of stalls.

Spans = Sequence[Sequence[Any]]


def timeline(title: str, about: str, tracks: Sequence[Mapping[str, Any]], end_s: float) -> str:
    """A picture with what it was drawn from, for a page with the script.

    Args:
        title: Of the picture.
        about: What is to be seen, for who cannot see it.
        tracks: ``name`` and ``spans``: [start_s, dur_s, label, category] each, by rising start.
        end_s: Where the axis ends.
    """
    shown, kinds = _sorted(tracks[:TRACKS_MAX])
    if not any(track["spans"] for track in shown) or not end_s > 0:
        return svg.picture(title, about, WIDTH, 60, [svg.label(480, 34, "nothing to show")])
    scale = Scale(0.0, end_s, NAME, WIDTH - RIGHT)
    squares, top = legend(kinds, WIDTH)
    bottom = top + ROW * len(shown)
    parts = [*squares, svg.tag("g", "".join(_axis(scale, top, bottom)), class_="axis")]
    for number, track in enumerate(shown):
        parts += _track(number, track, kinds, scale, top + ROW * number)
    picture = svg.picture(title, about, WIDTH, bottom + FOOT, parts)
    data = {
        "end": end_s, "left": NAME, "right": WIDTH - RIGHT, "top": top, "row": ROW, "bar": BAR,
        **_packed(shown, kinds),
    }  # fmt: skip
    return f'{picture}<script type="application/json">{_json(data)}</script>'


def with_stalls(tracks: Sequence[Mapping[str, Any]], stalls: Spans) -> list[Mapping[str, Any]]:
    """Tracks, agents last, and before these one for stalls: [start_s, dur_s, agent, step] each."""
    spans = [[start, length, f"{who}, step {step}", "stall"] for start, length, who, step in stalls]
    held = [{"name": HELD, "kind": "stall", "spans": spans}] if stalls else []
    agents = [track for track in tracks if track.get("kind") == "agent"]
    return [*(track for track in tracks if track.get("kind") != "agent"), *held, *agents]


def _sorted(tracks: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Tracks with the spans that can be drawn, and the kinds that these are of."""
    spans = [
        [[s, length, said, str(kind)] for s, length, said, kind in track["spans"]
         if is_number(s) and is_number(length)]
        for track in tracks
    ]  # fmt: skip
    kinds = svg.few((kind, length) for found in spans for _, length, _, kind in found)
    for span in chain.from_iterable(spans):
        if span[3] not in kinds:
            span[3] = svg.OTHER
    named = dict.fromkeys([*kinds, *(span[3] for span in chain.from_iterable(spans))])
    shown = [{"name": t["name"], "spans": s} for t, s in zip(tracks, spans, strict=True)]
    return shown, list(named)


def _axis(scale: Scale, top: float, bottom: float) -> Iterable[str]:
    for mark in ticks(scale.low, scale.high):
        if scale.low <= mark <= scale.high:
            at = scale.at(mark)
            yield svg.tag("path", class_="grid", d=f"M{at:.1f} {top}V{bottom}")
            yield svg.label(at, bottom + 15, seconds(mark))
    yield svg.label((scale.start + scale.end) / 2, bottom + 32, "time since the run's first tag")


def _track(
    number: int, track: Mapping[str, Any], kinds: Sequence[str], scale: Scale, top: float
) -> Iterable[str]:
    name = svg.words(svg.cut(track["name"], NAME - 12)) + svg.hint(track["name"])
    yield svg.tag("text", name, x=NAME - 8, y=top + 14, text_anchor="end")
    yield svg.tag("path", class_="grid", d=f"M{NAME} {top + ROW}H{WIDTH - RIGHT}")
    for place, kind in enumerate(kinds):
        spans = [span for span in track["spans"] if span[3] == kind]
        yield svg.tag("path", class_=f"full {svg.colour(place)}", d=outline(spans, scale, top + 3),
                      data_track=number, data_kind=place)  # fmt: skip


def outline(spans: Spans, scale: Scale, top: float) -> str:
    """One path of rectangles; what lies closer than a pixel's part is one of them."""
    boxes: list[list[float]] = []
    for start_s, length_s, *_ in spans:
        start, end = scale.at(start_s), scale.at(start_s + max(length_s, 0.0))
        end = max(end, start + LEAST_PX)
        if boxes and start - boxes[-1][1] < NEAR_PX:
            boxes[-1][1] = max(boxes[-1][1], end)
        else:
            boxes.append([start, end])
    drawn = (f"M{start:.1f} {top:g}h{end - start:.1f}v{BAR}H{start:.1f}z" for start, end in boxes)
    return "".join(drawn) or "M0 0"


def _packed(tracks: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> dict[str, Any]:
    """Tracks as whole microseconds and numbers of labels."""
    labels: dict[str, int] = {}
    packed = []
    for track in tracks:
        spans = [
            [round(start * 1e6), round(length * 1e6),
             labels.setdefault(svg.plain(said), len(labels)), kinds.index(kind)]
            for start, length, said, kind in track["spans"]
        ]  # fmt: skip
        packed.append({"name": svg.plain(track["name"]), "spans": spans})
    return {"tracks": packed, "labels": list(labels), "kinds": [svg.plain(kind) for kind in kinds]}


def _json(data: Any) -> str:
    """JSON that can lie in a page: nothing in it can end the element that holds it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
