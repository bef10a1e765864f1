"""One file of a model folder, opened once: the descriptor that is hashed is the one that is loaded.

A path can come to mean another file between hashing and loading; a descriptor cannot. It can be
written to, though, so its stamp (size, times) is compared again once ONNX Runtime has its copy.
"""

import hashlib
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from lockstep.engine.errors import ModelRejected

# A location with this in it makes ONNX Runtime take an address in its own memory for a file.
MEMORY_TAG = "_ORT_MEM_ADDR_"

Mapped = mmap.mmap | bytes


@contextmanager
def placed(root: Path) -> Iterator[None]:
    """What is refused inside says in which folder: readers of a file know its name alone."""
    try:
        yield
    except ModelRejected as error:
        if str(root) in str(error):
            raise
        raise ModelRejected(f"{root}/{error}") from None


class Blob:
    """A read-only view of a file inside ``root``. Close it after the session is made.

    Attributes:
        name: Path relative to the folder, with forward slashes.
        data: The whole file, mapped; valid until `close`.
    """

    def __init__(self, root: Path, name: str) -> None:
        path = _inside(root, name)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise ModelRejected(f"{root / name}: cannot be read: {error.strerror}") from None
        self.name = name
        self._stamp = self._now()
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            self._shut()
            raise ModelRejected(f"{root / name}: not a regular file")
        self.data: Mapped = b""  # An empty file cannot be mapped.
        if self._stamp[2]:
            self.data = mmap.mmap(self._fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        self._digest = ""

    def _now(self) -> tuple[int, ...]:
        found = os.fstat(self._fd)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    @property
    def sha256(self) -> str:
        """Hash of the mapped bytes, computed once."""
        if not self._digest:
            self._digest = hashlib.sha256(self.data).hexdigest()
        return self._digest

    def unchanged(self) -> None:
        """Raise ModelRejected when the file was written to since it was opened."""
        if self._now() != self._stamp:
            raise ModelRejected(f"{self.name}: changed while the model was being loaded")

    def close(self) -> None:
        """Let go of the mapping and the descriptor. The hash stays."""
        if isinstance(self.data, mmap.mmap):
            self.data.close()
        self.data = b""
        self._shut()

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self._shut()


def _inside(root: Path, name: str) -> Path:
    """The real path of ``name``, which must not leave ``root`` in any way.

    Raises:
        ModelRejected: absolute, ``..``, a link out of the folder, or missing.
    """
    pure = PurePosixPath(name)
    odd = not name or "\\" in name or "\0" in name or ":" in name or MEMORY_TAG in name
    if odd or pure.is_absolute() or ".." in pure.parts:
        raise ModelRejected(f"{root}: names the file {name!r}, which is not inside the folder")
    try:
        path = (root / name).resolve(strict=True)
    except (OSError, RuntimeError):
        raise ModelRejected(f"{root / name}: missing") from None
    if not path.is_relative_to(root):
        raise ModelRejected(
            f"{root / name}: a link to {path}, outside the folder; copy the folder with `cp -rL`"
        )
    return path
