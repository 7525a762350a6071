"""Plays the demo's stories under traffic, then attacks the database, and reports whether every
story ended as it should.

The director only uses what a user has: use cases, the simulated provider's switches and the
router. It never tells the gate an outcome. The stories are in `environment`.
"""

import json
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rich.console import Console

from harness.app import processes
from harness.app.demo.environment import (
    BETTER,
    INCUMBENT,
    NEW,
    NIGHTLY_ROUTE,
    OUTAGE_ROUTE,
    PORTS,
    WORSE,
    DemoEnvironment,
    Scenario,
    build_scenarios,
    play_to_end,
)
from harness.app.demo.rescued import count_backup_answers, count_rescued_callers
from harness.app.demo.traffic import DemoAgent, DemoTraffic, ProposalWatch
from harness.app.installation import Installation, open_installation
from harness.app.set_up import SetUpResult, set_up
from harness.canary import operations
from harness.frame.errors import SwapgateError
from harness.frame.formatting import format_count, format_span
from harness.frame.people.access import OPERATOR
from harness.frame.runtime.supervisor import wait_for_interrupt
from harness.gate.verdict import Failed
from harness.operations import queries
from harness.proposals import decisions
from harness.proposals.report.comparison import Comparison, load_comparison
from harness.proposals.submission import (
    ProposalRequest,
    create_proposal,
    get_proposal,
    list_proposals,
)
from harness.providers.registry import named_models
from harness.routing.proposal import ProposalPhase

QUIET_RPS = 8.0
BUSY_RPS = 220.0
FAILING_USERS_PER_S = 80.0
SDK_RPS = 14.0
# A slow machine needs some minutes; after this time the demo gives up.
LONGEST_S = 1200.0
SHOW_EVERY_S = 10.0
OUTAGE_AFTER_S = 20.0
OUTAGE_S = 20.0
SDK_REQUESTS = 500
AS_PLANNED = "all of it ended as it should"
NOT_AS_PLANNED = "something did not end as it should: it is marked with ✕ above"


def run_demo(*, once: bool, swap: bool) -> int:
    """Plays the demo and cleans up. Returns the exit code: 0 if every story ended as expected.

    once: ends after the stories; otherwise the traffic goes on until Ctrl-C. swap: exchanges
    the skills of two models, and so the ends of their stories.
    """
    stage = DemoEnvironment(swap=swap)
    return play_to_end(stage, lambda: _play(stage, once=once, swap=swap))


def _play(
    stage: DemoEnvironment,
    *,
    once: bool,
    swap: bool,
) -> bool:
    notes = stage.choose_ports(PORTS)
    stage.write_config()
    for provider in ("sim", "primary", "backup"):
        stage.start_provider(provider)
    made = set_up(stage.config)
    installation = open_installation(stage.config)
    stories = build_scenarios(swap=swap)
    rates = dict.fromkeys([OUTAGE_ROUTE, *(story.route for story in stories)], QUIET_RPS)
    traffic = DemoTraffic(f"{stage.url('router')}/v1", made.data_key or "", rates)
    show = DemoShow(installation, stage, traffic)
    for note in notes:
        show.say(note)
    show.say("Swapgate's processes start: half a minute or so")
    stage.start_swapgate()
    try:
        show.open(made)
        if swap:
            show.say("SWAP=1: aurora-2 and aurora-lite have exchanged their skills")
        outcome = show.report(show.play(stories))
        show.say(AS_PLANNED if outcome else NOT_AS_PLANNED)
        if not once:
            traffic.start()
            show.say(f"{stage.url('ui')}: the dashboard; traffic continues until Ctrl-C")
            wait_for_interrupt()
    finally:
        traffic.stop()
        installation.close()
    return outcome


@dataclass
class DemoStep:
    """A story with its proposal, as last read from the database."""

    story: Scenario
    comparison: Comparison
    reported: bool = False

    @property
    def phase(self) -> ProposalPhase:
        return self.comparison.proposal.phase

    @property
    def over(self) -> bool:
        return not self.comparison.proposal.open

    @property
    def ending(self) -> tuple[bool, str]:
        """Returns whether the story ended as expected, and a sentence about it."""
        verdict = self.comparison.verdict
        story = self.story
        words = verdict.words if verdict else "no verdict"
        text = f"{words}, then {self.comparison.proposal.phase_text}"
        return (
            self.phase is story.ends,
            f"{story.route}: {story.candidate}: {text}",
        )


@dataclass
class DemoShow:
    """Plays the stories on a running installation, and prints what happens."""

    installation: Installation
    stage: DemoEnvironment
    traffic: DemoTraffic
    scenes: list[DemoStep] = field(default_factory=list)
    _expected: list[Scenario] = field(default_factory=list)  # stories without a proposal yet
    _console: Console = field(default_factory=lambda: Console(highlight=False))
    _started: float = field(default_factory=time.monotonic)

    def say(self, words: str) -> None:
        elapsed = time.monotonic() - self._started
        self._console.print(
            f"[dim]{format_count(elapsed):>5} s[/dim]  {words}",
            soft_wrap=True,
        )
        sys.stdout.flush()

    def lines(self, title: str, lines: Sequence[str]) -> None:
        self._console.print(f"\n[bold]{title}[/bold]")
        for line in lines:
            self._console.print(f"  {line}", soft_wrap=True)

    def open(self, made: SetUpResult) -> None:
        self.stage.await_answer("ui", processes.HEALTH["ui"])
        self.lines(
            "Where to look",
            [
                *processes.address_lines(
                    self.installation.settings, ("ui", "router", "control")
                ),
                f"agents     {self.stage.url('router')}/agents (`swapgate docs open agents`)",
                f"sign in    {made.sign_in_link}",
                f"           works once; another browser takes the key {made.admin_key}",
                f"commands   swapgate --config {self.stage.config} proposal list",
            ],
        )
        self.say("policy `demo` asks for fewer items and callers than `default`")
        self.say("providers are simulated; router, control plane, evals and database are real")

    def play(self, stories: Sequence[Scenario]) -> list[tuple[bool, str]]:
        """Runs all stories to their ends. Returns the outcomes of the outage and the agent,
        each with a sentence; `report` adds the proposals' outcomes.
        """
        traffic = self.traffic
        swapped = next(story for story in stories if story.ends is ProposalPhase.PROMOTED)
        agent = DemoAgent(traffic.base_url, traffic.key, swapped.route, self.say)
        agent.take_turn(INCUMBENT)
        traffic.start(sdk_rate=SDK_RPS)
        for story in stories:
            if not story.scheduled:
                request = ProposalRequest(story.route, story.candidate, reason="make demo")
                create_proposal(self.installation.context, OPERATOR, request)
        self._release_model()
        self._expected = list(stories)
        outage = threading.Thread(target=self._outage, daemon=True)
        outage.start()
        self._watch()
        survived = self._swap_back(agent, swapped.candidate)
        outage.join()
        while traffic.tally.answered["openai"] < SDK_REQUESTS and not traffic.tally.failed:
            time.sleep(0.2)
        traffic.stop()
        # The router writes the counts of its requests at intervals.
        time.sleep(2 * self.installation.settings.router.flush_interval_s)
        lost = f"{OUTAGE_ROUTE}: provider lost under traffic, nobody noticed"
        loop = f"{agent.route}: an agent's tool loop survived its model's swap and its rollback"
        return [(self._backup_served(), lost), (survived, loop)]

    def _watch(self) -> None:
        """Follows the proposals until all have ended, or until `LONGEST_S`."""
        began = time.monotonic()
        shown = 0.0
        ctx = self.installation.context
        names = [story.route for story in self._expected]
        while (
            going_on := [scene for scene in self.scenes if not scene.over]
        ) or self._expected:
            self._adopt()
            for scene in going_on:
                self._refresh(scene)
            now = time.monotonic()
            if now - shown >= SHOW_EVERY_S:
                shown = now
                if texts := ProposalWatch(ctx, names).texts():
                    self.say(" · ".join(texts))
            if now > began + LONGEST_S:
                self.say(f"given up: some stories run longer than {format_span(LONGEST_S)}")
                return
            time.sleep(0.5)

    def _refresh(self, scene: DemoStep) -> None:
        ctx = self.installation.context
        proposal = scene.comparison.proposal.id
        # A comparison reads every answer, so only a new phase is worth one.
        if get_proposal(ctx, proposal).phase is not scene.phase:
            scene.comparison = load_comparison(ctx, proposal)
            self._announce(scene)
            if scene.phase is ProposalPhase.CANARY:
                self._canary_opened(scene.story)
            if scene.phase is ProposalPhase.AWAITING_APPROVAL:
                decisions.approve_proposal(ctx, OPERATOR, proposal, "make demo")
                self.say(f"{scene.story.route}: approved by a person")
        if scene.over:
            self.traffic.rates[scene.story.route] = QUIET_RPS

    def _release_model(self) -> None:
        name = NEW.partition("/")[2]
        like = BETTER.partition("/")[2]
        self._switch("POST", f"profiles/{name}", {"like": like})
        named_models.discover_models(self.installation.context, OPERATOR, "sim")
        self.say(f"{NEW} is new: {NIGHTLY_ROUTE} measures new models on a schedule")

    def _adopt(self) -> None:
        """Finds the proposals of the expected stories, also those that a schedule created."""
        ctx = self.installation.context
        for story in list(self._expected):
            for proposal in list_proposals(ctx, route=story.route, open_only=True):
                self._expected.remove(story)
                self.scenes.append(DemoStep(story, load_comparison(ctx, proposal.id)))
                self.say(f"{story.route}: {story.candidate} is proposed ({proposal.id})")

    def _announce(self, scene: DemoStep) -> None:
        verdict = scene.comparison.verdict
        proposal = scene.comparison.proposal
        name = f"{scene.story.route}: {scene.story.candidate}"
        if verdict is not None and not scene.reported:
            scene.reported = True
            self.say(f"{name}: {verdict.words}. {verdict.reason}")
        reason = proposal.closed_because
        after = f": {reason}" if scene.over and verdict and reason != verdict.reason else ""
        self.say(f"{name} is {proposal.phase_text}{after}")

    def _canary_opened(self, story: Scenario) -> None:
        self.traffic.rates[story.route] = BUSY_RPS
        if story.fault is not None:
            self.traffic.turns[story.route] = story.fault.turns
            self.traffic.rates[story.route] = FAILING_USERS_PER_S * story.fault.turns
            model = story.candidate.partition("/")[2]
            self._switch("PUT", f"faults/{model}", story.fault.switch)
            self.say(f"{model} now {story.fault.words}")

    def _switch(
        self,
        method: str,
        path: str,
        body: Mapping[str, object],
    ) -> None:
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.stage.url('sim')}/sim/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            pass

    def _swap_back(self, agent: DemoAgent, candidate: str) -> bool:
        """Rolls the agent's route back between two of its turns. Returns whether its tool loop
        survived.
        """
        try:
            agent.take_turn(candidate)
            why = "make demo: rollback during an agent's tool loop"
            operations.roll_back(self.installation.context, OPERATOR, agent.route, reason=why)
            self.say(f"{agent.route}: rolled back to {INCUMBENT}")
            agent.take_turn(INCUMBENT)
        except SwapgateError as error:
            self.say(str(error))
        return agent.survived(INCUMBENT, candidate, INCUMBENT)

    def _outage(self) -> None:
        time.sleep(OUTAGE_AFTER_S)
        pid = self.stage.kill("primary")
        self.say(
            f"{OUTAGE_ROUTE}: its provider (pid {pid}) was killed with SIGKILL under traffic"
        )
        time.sleep(OUTAGE_S)
        self.stage.start_provider("primary")
        self.say(f"{OUTAGE_ROUTE}: the provider is back")

    def _backup_served(self) -> bool:
        """Returns whether the backup answered requests during the outage and no request failed,
        by the router's own records.
        """
        found = count_backup_answers(self.installation.context, OUTAGE_ROUTE, self._began)
        self.say(
            f"{OUTAGE_ROUTE}: {found.answered} requests were answered by the backup, "
            f"{found.failed} failed"
        )
        return found.answered > 0 and found.failed == 0

    def _ending(self, scene: DemoStep) -> tuple[bool, str]:
        """Returns whether a story ended as expected, and a sentence about it.

        If its candidate had a fault, the rollback's reason must name it, and each caller whom
        the candidate failed must have the incumbent's answer.
        """
        good, text = scene.ending
        comparison = scene.comparison
        fault = scene.story.fault
        if fault is None:
            return good, text
        ctx = self.installation.context
        route = scene.story.route
        found = count_rescued_callers(
            ctx,
            route,
            candidate=comparison.candidate,
            incumbent=comparison.incumbent,
            since=self._began,
            failovers=queries.list_failovers(ctx, secret=self.installation.secret, route=route),
        )
        because = comparison.proposal.closed_because
        named = [failure for failure in fault.failures if failure in because]
        reason = f"the reason names {' and '.join(named) or 'another failure'}"
        words = found.describe(comparison.candidate.name, comparison.incumbent.name)
        seen = f"Online it {fault.words}"
        return good and bool(named) and found.all_rescued, f"{text}; {reason}. {seen}. {words}"

    @property
    def _began(self) -> datetime:
        # The database counts traffic by the minute, and the minute of the first proposal
        # began before the proposal.
        return self.scenes[0].comparison.proposal.created_at - timedelta(minutes=1)

    def report(self, beside: Sequence[tuple[bool, str]]) -> bool:
        tally = self.traffic.tally
        stories = [*(self._ending(scene) for scene in self.scenes), *beside]
        self.lines(
            "The seven stories",
            [f"{_mark(good=good)} {text}" for good, text in stories],
        )
        sdk = tally.answered["openai"]
        generator = tally.answered["generator"]
        enough = sdk >= SDK_REQUESTS
        self.lines(
            f"{_mark(good=not tally.failed)} {tally.total:,} requests of callers, "
            f"{tally.failed} failed",
            [
                f"{_mark(good=enough)} {sdk:,} by the official openai client",
                f"{generator:,} by the load generator",
                *tally.failures[:5],
            ],
        )
        kept = self._promise_holds() and all(good for good, _ in stories)
        return kept and not tally.failed and enough

    def _promise_holds(self) -> bool:
        """Tries to promote the failed candidate by SQL. Returns whether the database refused
        every try.
        """
        lost = [s for s in self.scenes if isinstance(s.comparison.verdict, Failed)]
        if not lost:
            self.lines("✕ No candidate failed its evals", [f"{WORSE} should have"])
            return False
        comparison = lost[0].comparison
        values = {
            "route": comparison.proposal.route,
            "candidate": comparison.proposal.candidate,
            "verdict": comparison.verdict.id if comparison.verdict else "",
        }
        tried = self.stage.attack(values)
        self.lines(
            f"Raw SQL tries to promote {comparison.candidate.name}",
            [
                f"{_mark(good=bool(why))} {title}: " + (f"refused: {why}" if why else "TAKEN")
                for title, why in tried.items()
            ],
        )
        return all(tried.values())


def _mark(*, good: bool) -> str:
    return "✓" if good else "✕"
