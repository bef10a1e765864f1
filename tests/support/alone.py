"""Code in an interpreter of its own, which has one thread and may fork."""

import os
import subprocess
import sys

from lockstep.workers.launch import ENVIRONMENT


def alone(code: str) -> tuple[str, str]:
    """What it writes on both streams."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ENVIRONMENT},
    )
    return done.stdout, done.stderr
