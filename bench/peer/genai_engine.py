"""onnxruntime-genai's Engine: serves a trace of conversations with its own batching.

On the CPU the Engine batches statically: what comes while a batch runs waits until it is empty,
and a request of several turns may only go on alone. So each turn is a request of its own with
everything that was said as its prompt, and the batch has room for all agents.
"""

import json
import time
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import numpy as np

Answer = dict[str, Any]
EVENTS_MAX = 256


class Agent:
    """One conversation."""

    def __init__(self, shared: list[int], turns: list[tuple[list[int], int]]) -> None:
        self.text = list(shared)
        self.turns = turns
        self.turn = 0
        self.asked_ns = 0
        self.tokens_ns: list[int] = []

    def say(self) -> tuple[list[int], int] | None:
        """The next prompt and the length of its answer; None: everything is said."""
        if self.turn == len(self.turns):
            return None
        line, tokens = self.turns[self.turn]
        self.turn += 1
        self.text += line
        return self.text, tokens


class Contestant:
    """Opened once; each trace is served from new."""

    def __init__(self) -> None:
        self._og: Any = import_module("onnxruntime_genai")
        self.versions = {"onnxruntime-genai": self._og.__version__}
        self._model: Any = None

    def ask(self, request: Answer) -> Answer:
        """``open``, then ``serve`` as often as wanted: ``ns`` of all, and its requests."""
        if request["do"] == "open":
            return self._open(request["model"], request["threads"], request["agents"])
        return self._serve(request["trace"])

    def _open(self, model: str, threads: int, agents: int) -> Answer:
        config = self._og.Config(model)
        options = {"intra_op_num_threads": threads}
        config.overlay(
            json.dumps(
                {
                    "model": {"decoder": {"session_options": options}},
                    "engine": {"static_batching": {"max_batch_size": agents}},
                }
            )
        )
        self._model = self._og.Model(config)
        return {}

    def _serve(self, trace: Answer) -> Answer:
        og, engine = self._og, self._og.Engine(self._model)
        buffer, flags = engine.create_event_buffer(EVENTS_MAX), og.EngineEventFlags
        open_: dict[int, tuple[Any, Agent]] = {}
        served = []
        begun = time.perf_counter_ns()
        for turns in trace["agents"]:
            self._begin(engine, Agent(trace["shared"], turns), open_)
        while engine.has_pending_requests():
            events = list(engine.run(buffer))
            now = time.perf_counter_ns()
            for event in events:
                request, agent = open_[id(event.request)]
                if event.flags & flags.FAILED:
                    raise SystemExit(f"the Engine failed: {event.error_code}")
                if event.flags & flags.TOKEN:
                    agent.text.append(int(event.token))
                    agent.tokens_ns.append(now)
                if event.flags & flags.TURN_FINISHED:
                    usage = event.usage
                    said = [usage.prompt_tokens, usage.cached_prompt_tokens]
                    served.append([agent.asked_ns, agent.tokens_ns, *said])
                    del open_[id(request)]
                    request.close()
                    self._begin(engine, agent, open_)
        return {"ns": time.perf_counter_ns() - begun, "requests": served}

    def _begin(self, engine: Any, agent: Agent, open_: dict[int, tuple[Any, Agent]]) -> None:
        said = agent.say()
        if said is None:
            return
        prompt, tokens = said
        options = self._og.RequestOptions()
        options.set_max_session_tokens(len(prompt) + tokens)
        request = engine.create_request(options=options)
        turn = self._og.TurnOptions(request)
        turn.set_max_generated_tokens(tokens)
        turn.set_min_generated_tokens(tokens)  # No end before.
        turn.set_do_sample(False)
        agent.asked_ns, agent.tokens_ns = time.perf_counter_ns(), []
        open_[id(request)] = request, agent
        request.begin_turn(np.array(prompt, np.int32), turn)


def begin(_stack: ExitStack) -> tuple[dict[str, str], Any]:
    """Versions, and what answers requests."""
    contestant = Contestant()
    return contestant.versions, contestant.ask
