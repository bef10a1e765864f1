"""Line: a contestant in a process of its own, asked for rounds by lines of JSON.

A process is started once and measured in short rounds, so that rounds of two contestants can
alternate while neither pays for its start. What it prints goes to a file, for the message when it
dies; the lines have pipes of their own.
"""

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Self

from lockstep.engine.errors import UsageError

SAID_CHARS_MAX = 600  # Of a dead contestant's words, in the message.
END_S = 20.0  # What a contestant gets to leave by itself.
ANSWER_S_MAX = 600.0  # One that says nothing for so long hangs.

Answer = dict[str, Any]


class Line:
    """One contestant. Use as a context: it is ended in any case.

    Attributes:
        hello: Its first line: what it is.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        first_line: bytes = b"",
        answer_s_max: float = ANSWER_S_MAX,
    ) -> None:
        """Start it and wait for its hello.

        Args:
            name: For messages.
            command: Gets two descriptors as last arguments: to read requests, to write answers.
            environment: All of it.
            first_line: For its standard input, which stays open until `close`.
            answer_s_max: It is killed when an answer takes longer.

        Raises:
            UsageError: it ended before it said hello, or said nothing.
        """
        self.name = name
        self._answer_s_max = answer_s_max
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self._process = subprocess.Popen(
            [*command, str(theirs_in), str(theirs_out)],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            bufsize=0,
            env=dict(environment),
            pass_fds=(theirs_in, theirs_out),
            start_new_session=True,  # Ctrl-C reaches us only; closed pipes end the contestant.
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._requests = os.fdopen(ours_out, "wb", buffering=0)
        self._answers = os.fdopen(ours_in, "rb")
        try:
            assert self._process.stdin is not None
            if first_line:
                self._process.stdin.write(first_line)
            self.hello = self._hear()
        except BaseException:
            self.close()
            raise

    def ask(self, **request: Any) -> Answer:
        """One request, one answer.

        Raises:
            UsageError: the contestant died or hangs; its last words are in the message.
        """
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            pass  # It has ended: there is no answer either.
        return self._hear()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def _hear(self) -> Answer:
        ready, _, _ = select.select([self._answers], [], [], self._answer_s_max)
        line = self._answers.readline() if ready else b""
        if not line:
            self._process.kill()
            self._process.wait()
            what = "its process ended" if ready else f"no answer in {self._answer_s_max:g} s"
            raise UsageError(f"{self.name}: {what}: {self._words()}")
        answer: Answer = json.loads(line)
        return answer

    def _words(self) -> str:
        self._said.seek(0)
        words = self._said.read().decode("utf-8", "replace").strip()
        return words[-SAID_CHARS_MAX:] or "it said nothing"

    def close(self) -> None:
        """Close its pipes and wait for its end; then kill it."""
        assert self._process.stdin is not None
        for stream in (self._requests, self._process.stdin):
            try:
                stream.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            self._answers.close()
            self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
