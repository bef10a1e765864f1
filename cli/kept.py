"""What is kept for a report: a traceback, or what processes wrote, in a file that is named."""

import tempfile
from pathlib import Path

FOLDER = "reports"  # Of this user's cache folder; else beside other temporary files.


def keep(kind: str, data: bytes) -> str:
    """Keep something in a new file.

    Args:
        kind: Begins its name: ``bug``.
        data: All of it.

    Returns:
        Its path; empty: there is no place for it.
    """
    for folder in (_cache, tempfile.gettempdir):
        try:
            return _write(Path(folder()), kind, data)
        except (OSError, ImportError):
            continue
    return ""


def _write(folder: Path, kind: str, data: bytes) -> str:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, path = tempfile.mkstemp(dir=folder, prefix=f"lockstep-{kind}-", suffix=".txt")
    with open(descriptor, "wb") as file:
        file.write(data)
    return path


def _cache() -> str:
    from lockstep.workers.launch import cache_folder

    found = cache_folder()
    if not found:
        raise FileNotFoundError
    return f"{found}/{FOLDER}"
