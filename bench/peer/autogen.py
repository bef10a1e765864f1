"""autogen-core: one ``await runtime.send_message`` to an agent of the in-process runtime."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

TEXT = "x" * 64


@dataclass
class Message:
    """What is sent and answered: 64 bytes of text."""

    text: str


def start(stack: ExitStack) -> tuple[dict[str, str], Callable[[int], list[int]]]:
    """Start the runtime with one agent that answers each message with one of the same size."""
    core: Any = import_module("autogen_core")

    class Echo(core.RoutedAgent):  # type: ignore[misc]
        """Answers."""

        def __init__(self) -> None:
            super().__init__("echo")

        @core.message_handler  # type: ignore[untyped-decorator]
        async def answer(self, message: Message, ctx: Any) -> Message:
            return Message(message.text)

    loop = asyncio.new_event_loop()
    stack.callback(loop.close)

    async def begin() -> tuple[Any, Any]:
        runtime = core.SingleThreadedAgentRuntime()
        await Echo.register(runtime, "echo", lambda: Echo())
        runtime.start()
        return runtime, core.AgentId("echo", "default")

    runtime, receiver = loop.run_until_complete(begin())
    stack.callback(lambda: loop.run_until_complete(runtime.stop()))

    async def turns(count: int) -> list[int]:
        times = []
        for _ in range(count):
            begun = time.perf_counter_ns()
            answer = await runtime.send_message(Message(TEXT), receiver)
            times.append(time.perf_counter_ns() - begun)
            assert answer.text == TEXT
        return times

    versions = {"autogen-core": version("autogen-core")}
    return versions, lambda count: loop.run_until_complete(turns(count))
