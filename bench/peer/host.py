"""Host of a peer: ``python host.py PEER READ WRITE``, in the peer's own environment.

Says hello with the peer's versions, then answers each line until the requests end. A peer has
``start(stack)``, whose second result gives the times of N turns for each ``{"turns": N}``, or
``begin(stack)``, whose second result takes each request as it is and gives the answer. Standard
library only.
"""

import json
import os
import runpy
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

Answers = Callable[[dict[str, Any]], dict[str, Any]]


def main() -> None:
    """Run the peer named on the command line until nobody asks any more."""
    name, reading, writing = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # A peer's own processes must not hold our pipes open.
    os.set_inheritable(reading, False)
    os.set_inheritable(writing, False)
    peer = runpy.run_path(str(Path(__file__).with_name(f"{name}.py")))
    with (
        ExitStack() as stack,
        os.fdopen(reading, "rb", buffering=0) as requests,
        os.fdopen(writing, "wb", buffering=0) as answers,
    ):
        versions, answer = peer["begin"](stack) if "begin" in peer else _turns(peer, stack)
        answers.write(json.dumps({"versions": versions}).encode() + b"\n")
        while line := requests.readline():
            answers.write(json.dumps(answer(json.loads(line))).encode() + b"\n")


def _turns(peer: dict[str, Any], stack: ExitStack) -> tuple[Any, Answers]:
    versions, turns = peer["start"](stack)
    return versions, lambda request: {"times_ns": turns(int(request["turns"]))}


if __name__ == "__main__":
    main()
