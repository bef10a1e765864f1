"""Host of a peer: ``python host.py PEER READ WRITE``, in the peer's own environment.

Says hello with the peer's versions, then answers each line ``{"turns": N}`` with the times of N
turns, one after another. Ends when the requests end. Standard library only.
"""

import json
import os
import runpy
import sys
from contextlib import ExitStack
from pathlib import Path


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
        versions, turns = peer["start"](stack)
        answers.write(json.dumps({"versions": versions}).encode() + b"\n")
        while line := requests.readline():
            times_ns = turns(int(json.loads(line)["turns"]))
            answers.write(json.dumps({"times_ns": times_ns}).encode() + b"\n")


if __name__ == "__main__":
    main()
