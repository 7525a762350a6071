"""Plays the demo's stories under traffic, then attacks the database, and reports whether every
story ended as expected.

The director uses only the use cases, the router and the fault switches of the simulated
provider. It never passes an outcome to the gate. The stories are in `environment`.
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
    Story,
    build_stories,
    play_to_end,
)
from harness.app.demo.no_evals import PEOPLE, ScriptedPeople, draw_log
from harness.app.demo.rescued import count_backup_answers, count_rescued_callers
from harness.app.demo.traffic import DemoAgent, DemoTraffic, ProposalWatch
from harness.app.installation import Installation, open_installation
from harness.app.set_up import SetUpResult, set_up
from harness.canary import operations
from harness.frame.errors import SwapproofError
from harness.frame.formatting import format_count, format_span
from harness.frame.people.access import OPERATOR
from harness.frame.runtime.supervisor import wait_for_interrupt
from harness.gate.verdict import Failed
from harness.operations import queries
from harness.proposals import decisions
from harness.proposals.labels.label_verdicts import find_wait
from harness.proposals.report.comparison import Comparison, load_comparison
from harness.proposals.submission import (
    ProposalRequest,
    create_proposal,
    get_proposal,
    list_proposals,
)
from harness.providers.registry import named_models
from harness.routing.proposal import ProposalPhase
from harness.routing.records.proposals import Proposals

QUIET_RPS = 8.0
BUSY_RPS = 220.0
FAILING_USERS_PER_S = 80.0
SDK_RPS = 14.0
# A slow machine needs some minutes; after this time the demo gives up.
MAX_DURATION_S = 1200.0
SHOW_EVERY_S = 10.0
OUTAGE_AFTER_S = 20.0
OUTAGE_S = 20.0
SDK_REQUESTS = 500
EXPECTED_END = "every story ended as expected"
UNEXPECTED_END = "some stories did not end as expected: see the lines with ✕ above"


def run_demo(*, once: bool, swap: bool) -> int:
    """Plays the demo and cleans up. Returns the exit code: 0 if every story ended as expected.

    Args:
        once: ends after the stories; otherwise the traffic continues until Ctrl-C.
        swap: exchanges the skills of two models, and so the ends of their stories.
    """
    environment = DemoEnvironment(swap=swap)
    return play_to_end(environment, lambda: _play(environment, once=once, swap=swap))


def _play(
    environment: DemoEnvironment,
    *,
    once: bool,
    swap: bool,
) -> bool:
    notes = environment.choose_ports(PORTS)
    environment.write_config()
    for provider in ("sim", "primary", "backup"):
        environment.start_provider(provider)
    set_up_result = set_up(environment.config)
    installation = open_installation(environment.config)
    stories = build_stories(swap=swap)
    rates = dict.fromkeys([OUTAGE_ROUTE, *(story.route for story in stories)], QUIET_RPS)
    traffic = DemoTraffic(
        f"{environment.url('router')}/v1", set_up_result.data_key or "", rates
    )
    people = ScriptedPeople.create(installation)
    demo = DemoShow(installation, environment, traffic, people)
    for note in notes:
        demo.say(note)
    demo.say("Swapproof's processes start: half a minute or so")
    environment.start_swapproof()
    try:
        drawn = draw_log(installation, f"{environment.url('sim')}/v1", environment.folder)
        demo.release_model()
        environment.await_swapproof()
        demo.open(set_up_result)
        demo.say(drawn)
        demo.say(f"{NEW} is new: {NIGHTLY_ROUTE} measures new models on a schedule")
        if swap:
            demo.say("SWAP=1: aurora-2 and aurora-lite have exchanged their skills")
        outcome = demo.report(demo.play(stories))
        demo.say(EXPECTED_END if outcome else UNEXPECTED_END)
        if not once:
            traffic.start()
            demo.say(f"{environment.url('ui')}: the dashboard; traffic continues until Ctrl-C")
            wait_for_interrupt()
    finally:
        traffic.stop()
        installation.close()
    return outcome


@dataclass
class StoryProgress:
    """A story with its proposal, as last read from the database."""

    story: Story
    comparison: Comparison
    reported: bool = False

    @property
    def phase(self) -> ProposalPhase:
        return self.comparison.proposal.phase

    @property
    def has_ended(self) -> bool:
        return not self.comparison.proposal.open

    @property
    def ending(self) -> tuple[bool, str]:
        """Returns whether the story ended as expected, and a sentence about it."""
        verdict = self.comparison.verdict
        story = self.story
        verdict_text = verdict.words if verdict else "no verdict"
        text = f"{verdict_text}, then {self.comparison.proposal.phase_text}"
        return (
            self.phase is story.ends,
            f"{story.route}: {story.candidate}: {text}",
        )


@dataclass
class DemoShow:
    """Plays the stories on a running installation, and prints the events."""

    installation: Installation
    environment: DemoEnvironment
    traffic: DemoTraffic
    people: ScriptedPeople
    progresses: list[StoryProgress] = field(default_factory=list)
    _expected: list[Story] = field(default_factory=list)  # stories without a proposal yet
    _console: Console = field(default_factory=lambda: Console(highlight=False))
    _started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        elapsed = time.monotonic() - self._started
        self._console.print(
            f"[dim]{format_count(elapsed):>5} s[/dim]  {text}",
            soft_wrap=True,
        )
        sys.stdout.flush()

    def lines(self, title: str, lines: Sequence[str]) -> None:
        self._console.print(f"\n[bold]{title}[/bold]")
        for line in lines:
            self._console.print(f"  {line}", soft_wrap=True)

    def open(self, set_up_result: SetUpResult) -> None:
        self.environment.await_answer("ui", processes.HEALTH_PATHS["ui"])
        router = self.environment.url("router")
        self.lines(
            "Where to look",
            [
                *processes.address_lines(
                    self.installation.settings, ("ui", "router", "control")
                ),
                f"agents     {router}/agents (`swapproof docs open agents`)",
                f"sign in    {set_up_result.sign_in_link}",
                f"           works once; key for other browsers: {set_up_result.admin_key}",
                f"commands   swapproof --config {self.environment.config} proposal list",
            ],
        )
        self.say("policy `demo` asks for fewer items and callers than `default`")
        self.say("providers are simulated; router, control plane, evals and database are real")

    def play(self, stories: Sequence[Story]) -> list[tuple[bool, str]]:
        """Runs all stories to their ends. Returns whether the stories of the outage and of the
        agent ended as expected, each with a sentence. `report` adds the proposals' stories.
        """
        traffic = self.traffic
        promoted = next(
            story
            for story in stories
            if story.ends is ProposalPhase.PROMOTED and not story.labelled
        )
        agent = DemoAgent(traffic.base_url, traffic.key, promoted.route, self.say)
        agent.take_turn(INCUMBENT)
        traffic.start(sdk_rate=SDK_RPS)
        for story in stories:
            if not story.scheduled:
                request = ProposalRequest(story.route, story.candidate, reason="make demo")
                create_proposal(self.installation.context, OPERATOR, request)
        self._expected = list(stories)
        outage = threading.Thread(target=self._cause_outage, daemon=True)
        outage.start()
        self._watch()
        has_survived = self._swap_back(agent, promoted.candidate)
        outage.join()
        while traffic.tally.answered["openai"] < SDK_REQUESTS and not traffic.tally.failed:
            time.sleep(0.2)
        traffic.stop()
        # The router writes the counts of its requests at intervals.
        time.sleep(2 * self.installation.settings.router.flush_interval_s)
        outage_text = f"{OUTAGE_ROUTE}: provider lost under traffic, no request failed"
        agent_text = (
            f"{agent.route}: an agent's tool loop survived its model's swap and its rollback"
        )
        return [(self._check_backup(), outage_text), (has_survived, agent_text)]

    def _watch(self) -> None:
        """Follows the proposals until all have ended, or until `MAX_DURATION_S`."""
        began_at = time.monotonic()
        shown_at = 0.0
        ctx = self.installation.context
        routes = [story.route for story in self._expected]
        while (
            open_stories := [progress for progress in self.progresses if not progress.has_ended]
        ) or self._expected:
            self._find_proposals()
            for progress in open_stories:
                self._refresh(progress)
                if progress.story.labelled:
                    self._label(progress)
            now = time.monotonic()
            if now - shown_at >= SHOW_EVERY_S:
                shown_at = now
                if texts := ProposalWatch(ctx, routes).texts():
                    self.say(" · ".join(texts))
            if now > began_at + MAX_DURATION_S:
                self.say(
                    "the demo gave up: some stories run longer than "
                    f"{format_span(MAX_DURATION_S)}"
                )
                return
            time.sleep(0.5)

    def _refresh(self, progress: StoryProgress) -> None:
        ctx = self.installation.context
        proposal = progress.comparison.proposal.id
        # Loading a comparison reads every answer, so load it only for a new phase.
        if get_proposal(ctx, proposal).phase is not progress.phase:
            progress.comparison = load_comparison(ctx, proposal)
            self._announce(progress)
            if progress.phase is ProposalPhase.CANARY:
                self._note_open_canary(progress.story)
            if progress.phase is ProposalPhase.AWAITING_APPROVAL:
                decisions.approve_proposal(ctx, OPERATOR, proposal, "make demo")
                self.say(f"{progress.story.route}: approved by a person")
        if progress.has_ended:
            self.traffic.rates[progress.story.route] = QUIET_RPS

    def _label(self, progress: StoryProgress) -> None:
        """Lets the people label a few pairs while the story's proposal waits for labels."""
        ctx = self.installation.context
        with ctx.store.read() as tx:
            proposal = Proposals(tx).get(progress.comparison.proposal.id)
            if self.people.verdict or find_wait(tx, proposal) is None:
                return
        if not self.people.labelling:
            self.say(
                f"{proposal.route}: {' and '.join(PEOPLE)} label; they are scripts, and people "
                "need about 20 s for a label"
            )
        self.people.take_turn(ctx, proposal.id)
        if self.people.verdict:
            self.say(f"{proposal.route}: {self.people.verdict}")

    def release_model(self) -> None:
        """Lets the provider offer a new model, for the next run of the nightly schedule."""
        name = NEW.partition("/")[2]
        like = BETTER.partition("/")[2]
        self._switch("POST", f"profiles/{name}", {"like": like})
        named_models.discover_models(self.installation.context, OPERATOR, "sim")

    def _find_proposals(self) -> None:
        """Finds the proposals of the expected stories, including proposals of a schedule."""
        ctx = self.installation.context
        for story in list(self._expected):
            for proposal in list_proposals(ctx, route=story.route, open_only=True):
                self._expected.remove(story)
                self.progresses.append(StoryProgress(story, load_comparison(ctx, proposal.id)))
                self.say(f"{story.route}: {story.candidate} is proposed ({proposal.id})")

    def _announce(self, progress: StoryProgress) -> None:
        verdict = progress.comparison.verdict
        proposal = progress.comparison.proposal
        name = f"{progress.story.route}: {progress.story.candidate}"
        if verdict is not None and not progress.reported:
            progress.reported = True
            self.say(f"{name}: {verdict.words}. {verdict.reason}")
        reason = proposal.closed_because
        suffix = (
            f": {reason}" if progress.has_ended and verdict and reason != verdict.reason else ""
        )
        self.say(f"{name} is {proposal.phase_text}{suffix}")

    def _note_open_canary(self, story: Story) -> None:
        self.traffic.rates[story.route] = BUSY_RPS
        if story.fault is not None:
            self.traffic.turns[story.route] = story.fault.turns
            self.traffic.rates[story.route] = FAILING_USERS_PER_S * story.fault.turns
            model = story.candidate.partition("/")[2]
            self._switch("PUT", f"faults/{model}", story.fault.switch)
            self.say(f"{model} now {story.fault.text}")

    def _switch(
        self,
        method: str,
        path: str,
        body: Mapping[str, object],
    ) -> None:
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.environment.url('sim')}/sim/{path}",
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
            reason = "make demo: rollback during an agent's tool loop"
            operations.roll_back(
                self.installation.context, OPERATOR, agent.route, reason=reason
            )
            self.say(f"{agent.route}: rolled back to {INCUMBENT}")
            agent.take_turn(INCUMBENT)
        except SwapproofError as error:
            self.say(str(error))
        return agent.has_survived(INCUMBENT, candidate, INCUMBENT)

    def _cause_outage(self) -> None:
        time.sleep(OUTAGE_AFTER_S)
        pid = self.environment.kill("primary")
        self.say(
            f"{OUTAGE_ROUTE}: its provider (pid {pid}) was killed with SIGKILL under traffic"
        )
        time.sleep(OUTAGE_S)
        self.environment.start_provider("primary")
        self.say(f"{OUTAGE_ROUTE}: the provider is back")

    def _check_backup(self) -> bool:
        """Returns whether the backup answered requests during the outage and no request failed.

        The figures come from the router's records.
        """
        counts = count_backup_answers(self.installation.context, OUTAGE_ROUTE, self._began)
        self.say(
            f"{OUTAGE_ROUTE}: {counts.answered} requests were answered by the backup, "
            f"{counts.failed} failed"
        )
        return counts.answered > 0 and counts.failed == 0

    def _judge_story(self, progress: StoryProgress) -> tuple[bool, str]:
        """Returns whether a story ended as expected, and a sentence about it.

        If the candidate had a fault, the rollback's reason must name the fault. The incumbent
        must also have answered each request that the candidate failed.
        """
        ended_as_expected, text = progress.ending
        comparison = progress.comparison
        fault = progress.story.fault
        if progress.story.labelled:
            return ended_as_expected, f"{text}; {self.people.describe()}"
        if fault is None:
            return ended_as_expected, text
        ctx = self.installation.context
        route = progress.story.route
        rescued = count_rescued_callers(
            ctx,
            route,
            candidate=comparison.candidate,
            incumbent=comparison.incumbent,
            since=self._began,
            failovers=queries.list_failovers(ctx, secret=self.installation.secret, route=route),
        )
        rollback_reason = comparison.proposal.closed_because
        named_failures = [failure for failure in fault.failures if failure in rollback_reason]
        reason_text = f"the reason names {' and '.join(named_failures) or 'another failure'}"
        rescued_text = rescued.describe(comparison.candidate.name, comparison.incumbent.name)
        fault_text = f"Online it {fault.text}"
        return (
            ended_as_expected and bool(named_failures) and rescued.all_rescued,
            f"{text}; {reason_text}. {fault_text}. {rescued_text}",
        )

    @property
    def _began(self) -> datetime:
        # The database counts traffic by the minute, and the minute of the first proposal
        # began before the proposal.
        return self.progresses[0].comparison.proposal.created_at - timedelta(minutes=1)

    def report(self, other_outcomes: Sequence[tuple[bool, str]]) -> bool:
        tally = self.traffic.tally
        stories = [
            *(self._judge_story(progress) for progress in self.progresses),
            *other_outcomes,
        ]
        self.lines(
            "The eight stories",
            [f"{_mark(good=good)} {text}" for good, text in stories],
        )
        sdk = tally.answered["openai"]
        generator = tally.answered["generator"]
        enough_sdk_requests = sdk >= SDK_REQUESTS
        self.lines(
            f"{_mark(good=not tally.failed)} {tally.total:,} requests of callers, "
            f"{tally.failed} failed",
            [
                f"{_mark(good=enough_sdk_requests)} {sdk:,} by the official openai client",
                f"{generator:,} by the load generator",
                *tally.failures[:5],
            ],
        )
        all_expected = self._check_attacks() and all(good for good, _ in stories)
        return all_expected and not tally.failed and enough_sdk_requests

    def _check_attacks(self) -> bool:
        """Tries to promote the failed candidate by SQL. Returns whether the database refused
        every try.
        """
        failed = [
            progress
            for progress in self.progresses
            if isinstance(progress.comparison.verdict, Failed)
        ]
        if not failed:
            self.lines("✕ No candidate failed its evals", [f"{WORSE} should have failed them"])
            return False
        comparison = failed[0].comparison
        values = {
            "route": comparison.proposal.route,
            "candidate": comparison.proposal.candidate,
            "verdict": comparison.verdict.id if comparison.verdict else "",
        }
        refusals = self.environment.attack(values)
        self.lines(
            f"Raw SQL tries to promote {comparison.candidate.name}",
            [
                f"{_mark(good=bool(refusal))} {title}: "
                + (f"refused: {refusal}" if refusal else "TAKEN")
                for title, refusal in refusals.items()
            ],
        )
        return all(refusals.values())


def _mark(*, good: bool) -> str:
    return "✓" if good else "✕"
