"""Nodes: ONNX Runtime's own times of the nodes of its graphs, of the first steps of a run.

ONNX Runtime keeps its events in memory, a million at most, and writes them to a file of its own
when it is told to. So it is told after `STEPS_MAX` steps that computed something, or at the end of
the run. Its file has a name only while the models are loaded: then nothing is left of it if the
whole run is killed.
"""

import os
import shutil
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

from lockstep.workers.inference import provider
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.profile.node_events import SUFFIX
from lockstep.workers.profile.place import Place

STEPS_MAX = 200


class Nodes:
    """Of the sessions of this process. Made before they are.

    Args:
        scratch: Folder for their files. Who made it removes it, whatever becomes of this process.
    """

    def __init__(self, scratch: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(dir=scratch))
        self._files: dict[str, int] = {}
        self._steps = 0
        self._decoders: dict[int, Decoder] = {}
        patched: Any = provider
        inner, numbers = patched._options, count()

        def options(*arguments: Any) -> Any:
            made = inner(*arguments)
            made.enable_profiling = True
            # ONNX Runtime adds the time, in seconds: sessions of one second need names.
            made.profile_file_prefix = str(self._folder / f"{next(numbers)}")
            return made

        patched._options = options

    def loaded(self, decoders: dict[int, Decoder]) -> None:
        """The sessions are there: let their files have no name any more."""
        self._decoders = dict(decoders)
        for path in self._folder.iterdir():
            self._files[path.name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        shutil.rmtree(self._folder, ignore_errors=True)

    def computed(self, place: Place) -> None:
        """A step was: is that enough?"""
        self._steps += 1
        if self._steps == STEPS_MAX:
            self.end(place)

    def end(self, place: Place) -> None:
        """Keep what there is, beside the tracks. Idempotent; a disk without room keeps nothing."""
        decoders, self._decoders = self._decoders, {}
        for model, decoder in decoders.items():
            began = decoder.session.get_profiling_start_time_ns()
            name = Path(decoder.session.end_profiling()).name
            # ONNX Runtime's moments are of the wall clock, all others of the monotonic one.
            moment = began - (time.time_ns() - time.monotonic_ns())
            if name in self._files and place.path is not None:
                _keep(self._files[name], place.path / f"model-{model}-{moment}{SUFFIX}", moment)
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}


def _keep(descriptor: int, path: Path, moment: int) -> None:
    try:
        with open(descriptor, "rb", closefd=False) as source, open(path, "xb") as target:
            target.write(b"%d\n" % moment)
            shutil.copyfileobj(source, target)
    except OSError:
        path.unlink(missing_ok=True)
