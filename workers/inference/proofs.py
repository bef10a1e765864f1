"""Proofs: which class of equality was proven for a model on this machine, kept between runs.

A proof holds for everything in its subject: files of the model, version of onnxruntime, CPU and
GPU, threads, rows. Another one of these, and it is proven anew. Nobody has to delete anything, and
whoever does loses some seconds.
"""

import hashlib
import json
import os
import platform
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lockstep.engine.fleet import Model

VERSION = 1  # Of the self-test: another one proves something else.
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "numpy")
CPU_FIELDS = ("model name", "flags", "Features", "CPU part", "microcode")
BYTES_MAX = 4096
FOLDER_MODE = 0o700


@dataclass(frozen=True, slots=True)
class Proof:
    """A class, and the providers (short names, in order) that it was proven on."""

    proven: str
    got: tuple[str, ...]


class Proofs:
    """A folder of proofs, one file each. What cannot be read or written is as good as absent.

    Args:
        folder: Made when needed, for this user only; None: nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def find(self, key: Mapping[str, Any]) -> Proof | None:
        """What was proven of a subject."""
        if self._folder is None:
            return None
        try:
            if not _private(self._folder):
                return None
            with self._path(self._folder, key).open("rb") as file:
                value = json.loads(file.read(BYTES_MAX))
            return Proof(str(value["proven"]), tuple(map(str, value["got"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, key: Mapping[str, Any], proof: Proof) -> None:
        """Keep it; whole or not at all."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            if not _private(self._folder):
                return
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                file.write(json.dumps(asdict(proof)).encode())
            Path(file.name).replace(self._path(self._folder, key))
        except OSError:
            return

    @staticmethod
    def _path(folder: Path, key: Mapping[str, Any]) -> Path:
        text = json.dumps(key, sort_keys=True).encode()
        return folder / f"{hashlib.sha256(text).hexdigest()}.json"


def subject(files: Mapping[str, str], model: Model) -> dict[str, Any]:
    """Everything that a proof holds for, JSON-able.

    Args:
        files: File name -> sha256 of the model.
        model: Its sizes and providers.
    """
    return {
        "self-test": VERSION,
        "files": dict(files),
        "providers": model.providers,
        "intra_op_threads": model.intra_op_threads,
        "rows_max": model.rows_max,
        "tokens_max": model.tokens_max,
        "candidates": model.candidates,
        "cuda_graphs": model.cuda_graphs,
        "versions": {name: _version(name) for name in PACKAGES},
        "machine": platform.machine(),
        "cpu": _lines(Path("/proc/cpuinfo"), CPU_FIELDS),
        "devices": devices(),
    }


def devices(root: Path = Path("/proc/driver/nvidia")) -> list[str]:
    """NVIDIA's driver and GPUs as the kernel names them; empty without them."""
    found = _lines(root / "version", ("NVRM version",))
    for path in sorted(root.glob("gpus/*/information")):
        found += _lines(path, ("Model",))
    return found


def _lines(path: Path, names: tuple[str, ...]) -> list[str]:
    """Different ``name : value`` lines of these names, in order."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    return list(dict.fromkeys(line for line in lines if line.partition(":")[0].strip() in names))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _private(folder: Path) -> bool:
    """Whether nobody else can put a proof there."""
    found = folder.stat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
