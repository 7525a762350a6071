"""Sends simulated users' requests for `swapgate sim traffic`, and reports their results."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.app.demo.traffic import DemoTraffic
from harness.canary.status import list_canaries
from harness.frame.errors import CallFailed, InputError
from harness.frame.formatting import format_bps, format_count, format_harm
from harness.frame.runtime.supervisor import interrupts
from harness.operations import queries
from harness.proposals.evaluation import evaluation
from harness.routes import routes as routing
from harness.routing.context import Context
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.table import FIRST_ROUTE_STEP

REPORT_EVERY_S = 5.0
LOOK_EVERY_S = 0.5
# If all requests fail for this long, the models are not the cause. A new key takes a moment.
HOPELESS_S = 5.0


@dataclass(frozen=True, slots=True)
class TrafficResult:
    requests: int
    failed: int
    # Whether all open proposals of the routes ended, if the caller waits for them. A proposal
    # that waits for an approval has not ended.
    settled: bool


def send_traffic(  # noqa: PLR0913 - what the command's options say
    ctx: Context,
    url: str,
    key: str,
    *,
    routes: Sequence[str],
    rate: float,
    seconds: float | None,
    until_settled: bool,
    say: Callable[[str], None],
) -> TrafficResult:
    """Sends requests until Ctrl-C, the time limit, or the end of the routes' proposals.

    url: the router's address, without `/v1`.
    routes: if empty, all routes of the table.
    seconds: the time limit; None for no limit.
    Raises NotFound for an unknown route, InputError without a route or an open proposal, and
    CallFailed if no request gets an answer.
    """
    wanted = _routes_to_ask(ctx, routes)
    watch = ProposalWatch(ctx, wanted)
    if until_settled and not watch.open:
        raise InputError(
            f"no proposal is open on {', '.join(wanted)}, so there is nothing to wait for: "
            f"create one with `swapgate proposal create {wanted[0]} MODEL --reason WHY`"
        )
    traffic = DemoTraffic(f"{url.rstrip('/')}/v1", key, dict.fromkeys(wanted, rate))
    where = f"{', '.join(wanted)} at {traffic.base_url}"
    say(f"{rate:g} requests per second to {where}; Ctrl-C ends them")
    began = reported = time.monotonic()
    traffic.start()
    try:
        with interrupts() as over:
            while not (over.ended or (until_settled and watch.rests)):
                time.sleep(LOOK_EVERY_S)
                elapsed = time.monotonic() - began
                if seconds is not None and elapsed >= seconds:
                    break
                if elapsed >= HOPELESS_S:
                    _require_answers(traffic)
                for line in watch.refresh():
                    say(line)
                if began + elapsed - reported >= REPORT_EVERY_S:
                    reported = began + elapsed
                    say(_report(traffic, watch, elapsed))
    finally:
        traffic.stop()
    say(_count(traffic))
    if over.ended and until_settled:
        raise KeyboardInterrupt
    if until_settled:
        for line in watch.approvals():
            say(line)
    _require_answers(traffic)
    settled = not (until_settled and watch.open)
    return TrafficResult(traffic.tally.total, traffic.tally.failed, settled)


def _routes_to_ask(ctx: Context, names: Sequence[str]) -> list[str]:
    with ctx.store.read() as tx:
        wanted = [routing.require_route(tx, name).name for name in names]
        wanted = wanted or sorted(Routing(tx).table().routes)
    if not wanted:
        raise InputError(f"there is no route to ask: {FIRST_ROUTE_STEP}")
    return list(dict.fromkeys(wanted))


def _require_answers(traffic: DemoTraffic) -> None:
    tally = traffic.tally
    if tally.failed and tally.failed == tally.total:
        raise CallFailed(
            f"none of {tally.total} requests was answered, so the traffic ends. The first: "
            f"{tally.failures[0]}"
        )


def _report(traffic: DemoTraffic, watch: "ProposalWatch", elapsed: float) -> str:
    parts = [_count(traffic), *watch.texts()]
    return f"{format_count(elapsed):>5} s  {' · '.join(parts)}"


def _count(traffic: DemoTraffic) -> str:
    return f"{traffic.tally.total:,} requests, {traffic.tally.failed:,} failed"


@dataclass
class ProposalWatch:
    ctx: Context
    routes: Sequence[str]
    open: dict[str, str] = field(default_factory=dict)  # route to its proposal

    def __post_init__(self) -> None:
        self._adopt()

    def _adopt(self) -> None:
        with self.ctx.store.read() as tx:
            for proposal in Proposals(tx).open():
                if proposal.route in self.routes:
                    self.open[proposal.route] = proposal.id

    def refresh(self) -> list[str]:
        ended = []
        for route, proposal in self.proposals.items():
            if not proposal.open:
                del self.open[route]
                name = queries.find_target(self.ctx, proposal.candidate).name
                phase = proposal.phase_text
                ended.append(f"{route}: {name} is {phase}: {proposal.closed_because}")
        self._adopt()
        return ended

    @property
    def rests(self) -> bool:
        """Returns whether all proposals have ended or wait for a person's approval."""
        return all(p.phase is ProposalPhase.AWAITING_APPROVAL for p in self.proposals.values())

    def approvals(self) -> list[str]:
        return [
            f"{route}: waits for {describe_approver(proposal)}: `swapgate proposal approve "
            f"{proposal.id}`, or the page Proposals; then send traffic again"
            for route, proposal in sorted(self.proposals.items())
            if proposal.phase is ProposalPhase.AWAITING_APPROVAL
        ]

    @property
    def proposals(self) -> dict[str, Proposal]:
        with self.ctx.store.read() as tx:
            return {route: Proposals(tx).get(id_) for route, id_ in self.open.items()}

    def texts(self) -> list[str]:
        return [
            f"{route}: {self._text(proposal)}"
            for route, proposal in sorted(self.proposals.items())
        ]

    def _text(self, proposal: Proposal) -> str:
        if proposal.phase is ProposalPhase.EVALUATING:
            with self.ctx.store.read() as tx:
                done, most = evaluation.count_answers(tx, proposal)
            return f"evals: {done} of at most {most} answers"
        if proposal.phase is ProposalPhase.CANARY:
            for canary in list_canaries(self.ctx, route=proposal.route)[:1]:
                now, action = canary.rollout.current, canary.action
                return (
                    f"canary at {format_bps(now.weight_bps)}: {action.step_exposures} of "
                    f"{now.min_exposures} exposures, evidence of harm "
                    f"{format_harm(action.distance_to_trip)}"
                )
        return proposal.phase_text


def describe_approver(proposal: Proposal) -> str:
    return "an approver" + ("" if proposal.self_approval else " other than its proposer")
