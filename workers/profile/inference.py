"""The inference process, profiled: its life around `serving`, which is imported in it alone."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from lockstep.workers.profile.place import Place
from lockstep.workers.profile.spans import Role, Spans
from lockstep.workers.tasks import InferenceTask

INFERENCE_BYTES_MAX = 256 << 20


class ProfiledInference:
    """The life of the inference process, with a track.

    Args:
        task: What it does.
        place: Of the tracks.
        scratch: Folder for what ONNX Runtime notes of the nodes of its graphs; None: it does not.
    """

    def __init__(self, task: InferenceTask, place: Place, scratch: Path | None) -> None:
        self._task, self._place, self._scratch = task, place, scratch

    def __call__(self) -> int:
        spans = Spans(self._place, Role.INFERENCE, 0, "inference", INFERENCE_BYTES_MAX)
        spans.open()  # Of one that takes another's place; the first has none yet.
        from lockstep.workers.profile.nodes import Nodes
        from lockstep.workers.profile.serving import ProfiledServer

        nodes = None if self._scratch is None else Nodes(self._scratch)
        return replace(self._task, make=partial(ProfiledServer, spans, self._place, nodes))()
