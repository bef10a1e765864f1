"""Other ways for bytes from process to process: Queue, Pipe, a SEQPACKET socket, ZeroMQ over ipc.

Each way has a child of its own at its other end. A request is
``{"way": "pipe", "size": 64, "messages": 5000}``, answered by the time until the other end has
taken and looked at all of them, or ``{"way": "pipe", "size": 64, "turns": 300}``, answered by the
times of that many round trips. ZeroMQ is there in an environment that has pyzmq.
"""

import ctypes
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from platform import python_version
from typing import Any

zmq = import_module("zmq") if find_spec("zmq") else None

FORK = multiprocessing.get_context("fork")
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PAYLOADS = 4  # Messages differ from one to the next, so that a lost one is seen.

Send = Callable[[bytes], Any]
Receive = Callable[[], bytes]
End = tuple[Send, Callable[[int], Receive]]  # What receives messages of a size.
Way = Callable[[bool], End]  # The near end or the far one.


def queue() -> Way:
    """multiprocessing.Queue, one each way: objects are pickled, a thread feeds a pipe."""
    there, back = FORK.Queue(), FORK.Queue()
    return lambda near: (
        (there.put, lambda size: back.get) if near else (back.put, lambda size: there.get)
    )


def pipe() -> Way:
    """multiprocessing.Pipe, one each way: bytes as they are, with their length before them."""
    there, back = FORK.Pipe(duplex=False), FORK.Pipe(duplex=False)
    return lambda near: (
        (there[1].send_bytes, lambda size: back[0].recv_bytes)
        if near
        else (back[1].send_bytes, lambda size: there[0].recv_bytes)
    )


def seqpacket() -> Way:
    """A pair of Unix sockets that keep messages apart."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def end(near: bool) -> End:
        one = ends[0] if near else ends[1]
        return one.send, lambda size: partial(one.recv, size)

    return end


def ipc(path: str, copy: bool) -> Way:
    """ZeroMQ: a pair of sockets over ipc. Contexts are made behind the fork: they have threads.

    Args:
        path: Of the socket.
        copy: Messages are bytes objects; else the library's own memory is sent from and looked at,
            which pays for large ones.
    """

    def end(near: bool) -> End:
        assert zmq is not None
        one = zmq.Context().socket(zmq.PAIR)
        if near:
            one.bind(f"ipc://{path}")
        else:
            one.connect(f"ipc://{path}")
        if copy:
            return one.send, lambda size: one.recv
        return partial(one.send, copy=False), lambda size: lambda: one.recv(copy=False).buffer

    return end


class Transport:
    """One way, and the child at its far end."""

    def __init__(self, way: Way, stack: ExitStack) -> None:
        self._way = way
        self._near: End | None = None
        self._control, far = FORK.Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                _serve(far, way)
            finally:
                os._exit(0)
        far.close()
        stack.callback(self._end)

    def stream(self, size: int, count: int) -> int:
        """Nanoseconds that ``count`` messages took until the last was looked at."""
        send, _ = self._open()
        payloads = [bytes([number]) * size for number in range(PAYLOADS)]
        self._control.send(("stream", size, count))
        begun = time.perf_counter_ns()
        for number in range(count):
            send(payloads[number % PAYLOADS])
        if self._control.recv() != count:
            raise RuntimeError("messages were lost or damaged")
        return time.perf_counter_ns() - begun

    def turns(self, size: int, count: int) -> list[int]:
        """Nanoseconds of each of ``count`` round trips."""
        send, receiver = self._open()
        receive = receiver(size)
        payload, times = bytes(size), []
        self._control.send(("echo", size, count))
        for _ in range(count):
            begun = time.perf_counter_ns()
            send(payload)
            answer = receive()
            times.append(time.perf_counter_ns() - begun)
            if answer != payload:
                raise RuntimeError("an answer was damaged")
        return times

    def _open(self) -> End:
        if self._near is None:
            self._near = self._way(True)
        return self._near

    def _end(self) -> None:
        self._control.close()
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)


def _serve(control: "Connection[Any, Any]", way: Way) -> None:
    send, receiver = way(False)
    while True:
        what, size, count = control.recv()  # EOFError, when nobody asks any more, ends it.
        receive = receiver(size)
        if what == "stream":
            control.send(_look(receive, size, count))
        else:
            for _ in range(count):
                send(receive())


def _look(receive: Receive, size: int, count: int) -> int:
    """Take messages and look at the first and the last byte of each; how many were right."""
    last, right = size - 1, 0
    for number in range(count):
        message = receive()
        if message[0] == number % PAYLOADS == message[last]:
            right += 1
    return right


def begin(stack: ExitStack) -> tuple[dict[str, str], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Start the ways that this environment has; all children before any thread."""
    versions = {"python": python_version()}
    if zmq is None:
        ways = {"queue": queue(), "pipe": pipe(), "seqpacket": seqpacket()}
    else:
        versions["pyzmq"] = zmq.__version__
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ways = {"zmq": ipc(f"{folder}/copy", True), "zmq_nocopy": ipc(f"{folder}/nocopy", False)}
    transports = {name: Transport(way, stack) for name, way in ways.items()}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        transport, size = transports[request["way"]], request["size"]
        if "turns" in request:
            return {"times_ns": transport.turns(size, request["turns"])}
        return {"ns": transport.stream(size, request["messages"])}

    return versions, answer
