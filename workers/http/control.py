"""The control socket from here (workers/service/desk.py): one question at a time on a connection.

Who goes away before its answer is known by its connection, which is closed. One whose question was
answered is kept for the next: connecting costs both sides more than asking.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, NamedTuple

from lockstep.workers.http.problems import Problem, of_service
from lockstep.workers.outside.lines import ShortPath, uid_of

READ_BYTES = 1 << 16
ANSWER_S_MAX = 30.0  # What is answered at once.
KEPT_S = 2.0  # For the next question; the service sends away who says nothing for a minute.
KEPT_MAX = 8
LATER_S, LATER_S_MAX = 0.5, 5.0  # Between tries to cancel while a run is brought back.


class Connection(NamedTuple):
    """To the service."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Control:
    """Asks the service.

    Args:
        path: Of its socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[Connection, asyncio.TimerHandle] = {}  # The youngest last.

    async def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """One question that is answered at once.

        Raises:
            Problem: nobody answers.
        """
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                async for line in self.lines(command):
                    answer = line
        except TimeoutError:
            raise _unreachable("it does not answer") from None
        return answer

    async def status(self) -> dict[str, Any]:
        """How the service is.

        Raises:
            Problem: nobody answers, or with something else.
        """
        answer = await self.ask({"do": "status"})
        if "error" in answer:  # It has too many connections.
            raise of_service(answer)
        return answer

    async def lines(self, command: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """What is said to a command, line by line; the last line is its answer.

        Raises:
            Problem: nobody listens, or the service went away.
        """
        reader, writer = connection = self._again() or await self._connected()
        answered = False
        try:
            writer.write(json.dumps(command, ensure_ascii=False).encode() + b"\n")
            await writer.drain()
            while not answered:
                value = json.loads(await _line(reader))
                answered = "ids" not in value
                yield value
        except OSError as error:
            raise _unreachable(error.strerror or str(error)) from None
        finally:
            if answered and "error" not in value:  # It may send away who hears one.
                self._keep(connection)
            else:
                writer.close()

    def close(self) -> None:
        """Leave what is kept."""
        while (connection := self._again()) is not None:
            connection.writer.close()

    def _again(self) -> Connection | None:
        """One that is kept, the youngest first; None: there is none."""
        while self._kept:
            connection, timer = self._kept.popitem()
            timer.cancel()
            if not connection.reader.at_eof():
                return connection
            connection.writer.close()
        return None

    def _keep(self, connection: Connection) -> None:
        if len(self._kept) < KEPT_MAX:
            loop = asyncio.get_running_loop()
            self._kept[connection] = loop.call_later(KEPT_S, self._leave, connection)
        else:
            connection.writer.close()

    def _leave(self, connection: Connection) -> None:
        del self._kept[connection]
        connection.writer.close()

    async def _connected(self) -> Connection:
        try:
            with ShortPath(self._path.parent, self._path.name) as short:
                made = Connection(*await asyncio.open_unix_connection(short))
            uid = uid_of(made.writer.get_extra_info("socket"))
        except OSError as error:
            raise _unreachable(error.strerror or str(error)) from None
        if uid not in (os.getuid(), 0) and os.getuid():
            made.writer.close()
            raise _unreachable("another user's process listens at its socket")
        return made

    async def cancel(self, id: str) -> None:
        """Cancel an item whose client is gone; one that has ended is none any more.

        While the item's run is brought back it is asked again, or the item would be worked at for
        nobody.
        """
        wait_s = LATER_S
        command = {"do": "cancel", "item": id, "by": "its HTTP client, who has gone"}
        while True:
            try:
                answer = await self.ask(command)
            except Problem:
                return  # There is no service: its next one goes on with the item.
            if answer.get("code") != "later":
                return
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LATER_S_MAX)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """A line of any length; the service bounds it.

    Raises:
        ConnectionResetError: it ends before.
    """
    parts = []
    while True:
        try:
            parts.append(await reader.readuntil(b"\n"))
            return b"".join(parts)
        except asyncio.LimitOverrunError as error:
            parts.append(await reader.readexactly(error.consumed))
        except asyncio.IncompleteReadError:
            raise ConnectionResetError(0, "it closed the connection") from None


def _unreachable(why: str) -> Problem:
    text = f"the service does not run, or is still starting: {why}"
    return Problem(503, text, code="unavailable", retry_s=1.0)
