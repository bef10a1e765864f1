"""Scripted: agents without processes, so that the sequencer can be measured alone.

`Play` does what a supervisor does with a fleet whose agents all end their turns at once: pump,
answer every Wake with the next turn of a script, and pump again. What the rest of a run costs
(rings, processes, journal) is missing; measured beside a whole run it tells where time goes.
"""

from collections.abc import Callable

from lockstep.engine import actions
from lockstep.engine.effects import Turn
from lockstep.engine.fleet import Fleet
from lockstep.engine.fleet_file import parse
from lockstep.engine.record import Kind, Outcome, encode
from lockstep.engine.sequencer import Sequencer

FUEL = 2_000  # Of a turn: a small one.
PAYLOAD = bytes(64)

Script = Callable[[int], bytes]  # Agent to the records of its turns.


def fleet(agents: int) -> Fleet:
    """A fleet of agents that nobody will start."""
    text = (
        f'[fleet]\nname = "scripted"\n[agents.agent]\nmodule = "none.wasm"\nreplicas = {agents}\n'
    )
    return parse(text.encode(), "scripted.toml")


def passing(agents: int, messages: int) -> Script:
    """Every agent sends the next one so many messages of 64 bytes, in every turn."""
    sent = [
        b"".join(encode(Kind.SEND, PAYLOAD, id=n, peer=(agent + 1) % agents)
                 for n in range(messages))
        for agent in range(agents)
    ]  # fmt: skip
    return sent.__getitem__


class Play:
    """A fleet under way.

    Attributes:
        sequencer: What is measured.
    """

    def __init__(self, agents: int, script: Script) -> None:
        """Start the fleet; START and turn 0 are behind it afterwards.

        Args:
            agents: How many.
            script: What each sends in every turn; it must send something, or the run would end.
        """
        self.sequencer = Sequencer(fleet(agents), [])
        self.sequencer.start()
        self._script = script
        self._waiting = dict.fromkeys(range(agents), 0)  # Agent -> turn that it is in.
        self.run(2)

    def run(self, tags: int) -> None:
        """Let it run for so many tags."""
        for _ in range(tags):
            for agent, number in self._waiting.items():
                turn = Turn(number, FUEL, Outcome.BLOCKED, "", self._script(agent))
                self.sequencer.turn_ended(agent, turn)
            done = self.sequencer.pump()
            self._waiting = {act.agent: act.turn for act in done if isinstance(act, actions.Wake)}

    @property
    def messages(self) -> int:
        """That took effect so far."""
        return self.sequencer.world.counts.messages
