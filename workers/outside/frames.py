"""Frames over a stream socket between two loops: whole or not at all, and nobody ever blocks."""

import select
import socket
import struct
from collections.abc import Callable

from lockstep.workers.loop import Loop

# Frame: u32 bytes of the body | u32 what it is | u64 call, then the body.
HEAD = struct.Struct("<IIQ")
READ_BYTES = 1 << 16

Taken = Callable[[int, int, bytes], None]  # what, call, body


class Frames:
    """One end of a connected pair of stream sockets, which it owns."""

    def __init__(
        self, loop: Loop, end: socket.socket, taken: Taken, gone: Callable[[], None]
    ) -> None:
        """Watch the socket.

        Args:
            loop: Of this thread.
            end: The socket.
            taken: Called with every frame that arrived.
            gone: Called once when the other side has closed, or died.
        """
        end.setblocking(False)
        self._loop, self._end, self._taken, self._gone = loop, end, taken, gone
        self._in = bytearray()
        self._out = bytearray()
        self._open = True
        self._events = select.POLLIN
        loop.watch(end.fileno(), self._ready)

    def send(self, what: int, call: int, body: bytes = b"") -> None:
        """Send a frame, now or when there is room. Nothing to one that is gone."""
        if self._open:
            self._out += HEAD.pack(len(body), what, call) + body
            self._flush()

    def close(self) -> None:
        """Close; what was not sent is lost."""
        if self._open:
            self._open = False
            self._loop.forget(self._end.fileno())
            self._end.close()

    def _ready(self) -> None:
        if self._open and self._out:
            self._flush()
        while self._open:
            try:
                data = self._end.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                self._gone()
                return
            self._in += data
            self._take()

    def _take(self) -> None:
        start = 0
        while len(self._in) - start >= HEAD.size and self._open:
            size, what, call = HEAD.unpack_from(self._in, start)
            stop = start + HEAD.size + size
            if stop > len(self._in):
                break
            self._taken(what, call, bytes(self._in[start + HEAD.size : stop]))
            start = stop
        del self._in[:start]

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._end.send(self._out)
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            return  # The reader sees the end.
        events = select.POLLIN | (select.POLLOUT if self._out else 0)
        if events != self._events:
            self._events = events
            self._loop.change(self._end.fileno(), events)
