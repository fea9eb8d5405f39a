"""Votes on their way: promises between hosts, the witness and its record, and what voters have kept on disk.

A request and its answer are two messages, each late or lost; hosts on different sides of a split do not reach
each other. The witness is a process without a clock that replaces its record by compare-and-set.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ferry_cluster import commands as cluster_commands
from ferry_cluster import inputs as cluster_inputs
from ferry_host import commands, inputs
from ferry_sim.clockwork import Clockwork
from ferry_sim.network import Network
from ferry_sim.processes import Agent, Process, Reign
from ferry_types.quorum import NO_RECORD, WITNESS, VotingRecord, WitnessRecord

ADDRESS: Final = "witness:1"
DISK: Final = "disk"
"""Last part of the lanes in which records are kept."""

KEEPING_S: Final = 0.0005
"""How long a voting record takes to become durable; records of one host keep their order."""

ANSWER_DEADLINE_S: Final = 1.0
"""For how long a coordinator waits for the witness."""

ForHost = (
    commands.KeepVotes
    | commands.AskPromise
    | commands.AnswerPromise
    | commands.ReadWitness
    | commands.ReplaceWitness
)


@dataclass(eq=False)
class Witness(Process):
    """A witness. What it has kept survives it."""

    record: WitnessRecord = NO_RECORD

    @property
    def name(self) -> str:
        """As splits of the network know it."""
        return WITNESS

    def replace(self, record: WitnessRecord) -> bool:
        """Keep a record if it follows the present one."""
        follows = record.revision == self.record.revision + 1
        if follows:
            self.record = record
        return follows


class Ballots:
    """All that voters do outside their cores. ``kept``: host -> its voting record on disk."""

    def __init__(
        self,
        clockwork: Clockwork,
        network: Network,
        agents: Mapping[str, Agent],
        feed: Callable[[Agent, inputs.Event], None],
        submit: Callable[[Reign, cluster_inputs.Event], None],
    ) -> None:
        self.witness = Witness(clock_rate=1.0)
        self.kept: dict[str, VotingRecord] = {}
        self._clockwork = clockwork
        self._network = network
        self._agents = agents
        self._feed = feed
        self._submit = submit
        self._replies: dict[int, Callable[[str], None]] = {}

    # --- hosts ------------------------------------------------------------------------------------

    def carry_out(self, agent: Agent, command: ForHost) -> None:
        """Do what a host's core asks for."""
        match command:
            case commands.KeepVotes(record):
                self._keep(agent, record)
            case commands.AskPromise():
                self._ask(agent, command)
            case commands.AnswerPromise(reply, objection):
                self._replies.pop(reply)(objection)
            case commands.ReadWitness(poll):
                self._consult(agent, lambda: inputs.WitnessRead(poll, self.witness.record))
            case commands.ReplaceWitness(poll, _, record):
                self._consult(
                    agent,
                    lambda: inputs.WitnessReplaced(poll, self.witness.replace(record), self.witness.record),
                )

    def _keep(self, agent: Agent, record: VotingRecord) -> None:
        def kept() -> None:
            if self._agents[agent.name] is agent:
                self.kept[agent.name] = record
            self._feed(agent, inputs.VotesKept(record))

        what = (agent.incarnation, "keeps", record)
        self._clockwork.later(KEEPING_S, lambda: agent.do(kept), what, (agent.incarnation, DISK))

    def _ask(self, agent: Agent, command: commands.AskPromise) -> None:
        asked = self._agents[command.voter.name]

        def answer(objection: str) -> None:
            event = inputs.PromiseAnswered(command.poll, command.voter.uuid, objection)
            self._network.pass_on(asked, agent, event, lambda: self._feed(agent, event))

        def arrive() -> None:
            reply = self._clockwork.number()
            self._replies[reply] = answer
            self._feed(asked, inputs.PromiseAsked(reply, command.request))

        self._network.pass_on(agent, asked, command, arrive)

    def _consult(self, agent: Agent, act: Callable[[], inputs.Event]) -> None:
        def arrive() -> None:
            event = act()
            self._network.pass_on(self.witness, agent, event, lambda: self._feed(agent, event))

        what = (agent.incarnation, "asks the witness")
        self._network.pass_on(agent, self.witness, what, lambda: self.witness.do(arrive))

    # --- coordinators -----------------------------------------------------------------------------

    def consult(
        self, reign: Reign, command: cluster_commands.ReadWitness | cluster_commands.ReplaceWitness
    ) -> None:
        """Read or replace the witness's record for a coordinator."""
        answered = False

        def hear(event: cluster_inputs.WitnessAnswered | cluster_inputs.WitnessFailed) -> None:
            nonlocal answered
            if not answered:
                answered = True
                reign.do(lambda: self._submit(reign, event))

        def arrive() -> None:
            if isinstance(command, cluster_commands.ReplaceWitness):
                self.witness.replace(command.record)
            event = cluster_inputs.WitnessAnswered(command.address, self.witness.record)
            self._network.pass_on(self.witness, reign, event, lambda: hear(event))

        what = (reign.term, command)
        self._network.pass_on(reign, self.witness, what, lambda: self.witness.do(arrive))
        failed = cluster_inputs.WitnessFailed(command.address)
        self._clockwork.later(ANSWER_DEADLINE_S, lambda: hear(failed))
