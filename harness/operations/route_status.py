"""The status of a route, and the banners of the states in force, for people. No decision uses
them.

The order of RouteState and the ranks put the most urgent route first. Interfaces show these
words as they are; `harness.operations.route_queries` loads the rows behind them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.canary.canary_state import CanaryState
from harness.evals.proof_validity import ProofValidity
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import SignatureInvalid
from harness.frame.formatting import (
    format_age,
    format_date_time,
    format_quantity,
)
from harness.gate.canary_sentences import CanaryStateKind
from harness.gate.online.observation import TrafficMinute
from harness.gate.online.rollout import CanaryEnd, Rollout
from harness.gate.verdict import Verdict
from harness.operations.context import Context
from harness.proposals import break_glass
from harness.providers.force import KillSwitch, SwitchSource
from harness.providers.target import Target
from harness.routing.control import freezes
from harness.routing.control.deprecations import Deprecation
from harness.routing.control.outage_rule import OutageKind
from harness.routing.control.outages import OutageView
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.table import Route, RouteRecord

# For this time after its end, a canary ranks before routes at rest.
NEWS_PERIOD: Final = timedelta(days=1)


class RouteState(StrEnum):
    """The states of a route, from the most urgent on."""

    DOWN = "down"
    UNPROVED = "served without proof"
    HARM = "canary harms callers"
    ON_FALLBACK = "on fallback"
    HELD = "canary on hold"
    BAKE_HELD = "bake on hold"
    UNCOMPARED = "bake without a control"
    PAUSED = "canary paused"
    APPROVAL = "waits for approval"
    LABELS = "waits for people's labels"
    SUSPECT = "canary may be harming callers"
    ROLLED_BACK = "canary rolled back"
    ABORTED = "canary aborted"
    PROMOTION_ROLLED_BACK = "promotion rolled back"
    APPROVED = "approved, its canary waits"
    CANARY = "in canary"
    BAKING = "promoted and baking"
    EVALUATING = "being evaluated"
    NO_ROUTER = "no router answers"
    STEADY = "steady"


# States that wait for a person.
WAITING_STATES: Final = frozenset(
    {
        RouteState.HELD,
        RouteState.BAKE_HELD,
        RouteState.UNCOMPARED,
        RouteState.PAUSED,
        RouteState.APPROVAL,
        RouteState.LABELS,
    }
)
HARM_STATES: Final = frozenset({RouteState.HARM, RouteState.SUSPECT})
ENDED_STATES: Final = frozenset(
    {RouteState.ROLLED_BACK, RouteState.ABORTED, RouteState.PROMOTION_ROLLED_BACK}
)
OUTAGE_STATES: Final = frozenset({RouteState.DOWN, RouteState.ON_FALLBACK})
# The route's state shows these alerts, so a list beside the routes omits them.
ALERTS_OF_STATES: Final = frozenset(
    {
        AlertKind.AWAITING_APPROVAL,
        AlertKind.LABELS_WAIT,
        AlertKind.CANARY_PAUSED,
        AlertKind.CANARY_HELD,
        AlertKind.ROUTE_DOWN,
        AlertKind.ON_FALLBACK,
        AlertKind.BREAK_GLASS,  # also shown as a banner on all pages
    }
)
# Routes whose `RouteStatus.urgency` is below this need a person first.
URGENT_BELOW: Final = 5
_RANKS: Final[Mapping[RouteState, int]] = {
    RouteState.DOWN: 0,
    RouteState.UNPROVED: 1,
    RouteState.HARM: 1,
    RouteState.SUSPECT: 1,
    RouteState.ON_FALLBACK: 2,
    RouteState.APPROVED: 5,
    RouteState.CANARY: 5,
    RouteState.BAKING: 6,
    RouteState.EVALUATING: 7,
}
AT_REST: Final = 8
START_ROUTER: Final = "`swapproof serve router` starts one"
MAX_NAMED_ROUTES: Final = 3  # the headline names this many routes and counts the others

_STATE_BY_CANARY: Final[Mapping[CanaryStateKind, RouteState]] = {
    CanaryStateKind.HARM: RouteState.HARM,
    CanaryStateKind.PAUSED: RouteState.PAUSED,
    CanaryStateKind.HELD: RouteState.HELD,
    CanaryStateKind.SUSPECT: RouteState.SUSPECT,
    CanaryStateKind.EMPTY: RouteState.CANARY,
    CanaryStateKind.HEALTHY: RouteState.CANARY,
    CanaryStateKind.RUNNING: RouteState.CANARY,
    CanaryStateKind.BAKING: RouteState.BAKING,
    CanaryStateKind.UNCOMPARED: RouteState.UNCOMPARED,
    CanaryStateKind.PROMOTED: RouteState.STEADY,
    CanaryStateKind.ROLLED_BACK: RouteState.ROLLED_BACK,
    CanaryStateKind.ABORTED: RouteState.ABORTED,
    CanaryStateKind.PROMOTION_ROLLED_BACK: RouteState.PROMOTION_ROLLED_BACK,
}


@dataclass(frozen=True)
class RouteStatus:
    """A route with its canary, proposal, verdict and outage, for people.

    `rollout` is the live canary or bake, `last_rollout` the newest of all. `traffic` is empty
    in an overview, which does not load it.
    """

    route: Route
    incumbent: Target
    candidate: Target | None
    open_proposal: Proposal | None
    last_verdict: Verdict | None
    rollout: Rollout | None
    traffic: Sequence[TrafficMinute]  # the last hour's
    standing: ProofValidity | None = None
    # State of the live canary or bake, otherwise of the newest ended canary.
    canary_state: CanaryState | None = None
    last_rollout: Rollout | None = None  # the newest rollout
    verdict_proposal: str = ""  # id of the last verdict's proposal
    proposed: Target | None = None  # candidate of the open proposal
    rollback: RouteRecord | None = None  # a rollback of the newest promotion
    outage: OutageView | None = None  # None while the route's model serves
    forced: Target | None = None  # the target that a kill switch forces upon the route
    rivals: int = 0  # number of further open proposals
    waits: str = ""  # when the approved proposal's canary opens; empty without such a proposal
    # As code, the commands for each of its proposals that waits for people's labels.
    label_commands: Sequence[str] = ()
    has_router: bool = True  # whether a router serves, so that callers can get answers
    # The countdowns of its models: incumbent, candidate and fallbacks; the earliest end first.
    endings: Sequence[Deprecation] = ()

    @property
    def needs_decision(self) -> bool:
        return self.progress in WAITING_STATES

    @property
    def may_harm(self) -> bool:
        return self.progress in HARM_STATES

    @property
    def serves(self) -> str:
        """Name of the target that answers callers now; empty without one."""
        if not self.has_router:
            return ""
        if self.outage is None:
            return (self.forced or self.incumbent).name
        if self.outage.fallback is not None:
            return self.outage.fallback.name
        return "" if self.outage.outage.no_answers else self.incumbent.name

    @property
    def state(self) -> RouteState:
        """The state to show first: an outage, unless the route serves without proof or the
        canary harms callers. A route at rest is not steady without a router.
        """
        if self.outage is None:
            is_steady = self.progress is RouteState.STEADY
            return self.progress if self.has_router or not is_steady else RouteState.NO_ROUTER
        if self.outage.kind is OutageKind.DOWN:
            return RouteState.DOWN
        shows_progress = self.progress is RouteState.UNPROVED or self.may_harm
        return self.progress if shows_progress else RouteState.ON_FALLBACK

    @property
    def progress(self) -> RouteState:
        """The state without regard to an outage."""
        if self.route.break_glass is not None:
            return RouteState.UNPROVED
        if self.rollout is not None and self.canary_state is not None:
            state = _STATE_BY_CANARY[self.canary_state.kind]
            is_held = self.rollout.baking and state is RouteState.HELD
            return RouteState.BAKE_HELD if is_held else state
        if self.open_proposal is not None:
            state = _find_proposal_state(self.open_proposal)
            is_labelled = state is RouteState.EVALUATING and self.label_commands
            return RouteState.LABELS if is_labelled else state
        return (
            _STATE_BY_CANARY[self.canary_state.kind] if self.canary_state else RouteState.STEADY
        )

    @property
    def state_text(self) -> str:
        if self.outage is not None and self.state in OUTAGE_STATES:
            return self.outage.state_text
        if self.state is RouteState.NO_ROUTER:
            return self.state.value
        return self.progress_text

    @property
    def progress_text(self) -> str:
        is_of_canary = self.rollout is not None or self.progress in ENDED_STATES
        if is_of_canary and self.canary_state is not None:
            return self.canary_state.of_route
        return self.progress.value

    @property
    def reason(self) -> str:
        """Why the route is in its state; empty for states that need no reason."""
        if without_answers := self._outage_reason:
            return without_answers
        if by := self._caused_by:
            return f"{by[:1].upper()}{by[1:]}"
        if self.state is RouteState.APPROVAL and self.open_proposal is not None:
            until = f"{self.open_proposal.approval_ends_at:%Y-%m-%d %H:%M} UTC"
            return (
                f"Proposed by {self.open_proposal.proposer}; another person must approve or "
                f"reject it by {until}."
            )
        if self.state in (RouteState.LABELS, RouteState.APPROVED):
            return self._next_of_proposal
        has_reason = self.state in (WAITING_STATES | HARM_STATES | ENDED_STATES)
        if not has_reason or self.canary_state is None:
            return ""
        return self.canary_state.reason

    @property
    def _next_of_proposal(self) -> str:
        """What the open proposal waits for: people's labels, or the opening of its canary."""
        if self.state is RouteState.APPROVED:
            return self.waits
        return f"People decide which answers are better: {', then '.join(self.label_commands)}."

    @property
    def _outage_reason(self) -> str:
        """Why the route's model does not answer callers; empty if it does."""
        if self.outage is not None and self.state in OUTAGE_STATES:
            return self.outage.reason
        return f"{START_ROUTER}." if self.state is RouteState.NO_ROUTER else ""

    @property
    def _caused_by(self) -> str:
        """The end of a sentence that names who caused the state, and why; empty if no person
        did.
        """
        if self.state is RouteState.UNPROVED:
            return f"by break-glass {self.route.break_glass}, which two people approved."
        if self.state not in ENDED_STATES or self.canary_state is None:
            return ""
        by = self.canary_state.ended_by
        return f"{by.rstrip('.')}." if by else ""

    @property
    def line(self) -> str:
        """State and reason in one line: `promotion rolled back by ben: too chatty.`"""
        if by := self._caused_by:
            return f"{self.state_text} {by}"
        return f"{self.state_text}: {self.reason}" if self.reason else self.state_text

    def urgency(self, now: datetime) -> int:
        """Rank of the route in a list, lowest first."""
        if self.needs_decision and self.outage is None:
            return 3
        if self.ended_recently(now):
            return 4
        return _RANKS.get(self.state, AT_REST)

    def is_urgent(self, now: datetime) -> bool:
        return self.urgency(now) < URGENT_BELOW

    def is_at_rest(self, now: datetime) -> bool:
        return self.urgency(now) == AT_REST

    @property
    def end(self) -> CanaryEnd | None:
        """How the newest canary ended; None if its candidate serves."""
        if self.rollback is not None:
            return CanaryEnd.PROMOTION_ROLLED_BACK
        return self.last_rollout.end if self.last_rollout else None

    @property
    def changed_at(self) -> datetime | None:
        """The time when the newest canary changed last; None without a canary so far."""
        if self.rollback is not None:
            return self.rollback.at
        return self.last_rollout.updated_at if self.last_rollout else None

    def ended_ago(self, now: datetime) -> str:
        return format_age(self.changed_at, now) if self.changed_at else ""

    def ended_recently(self, now: datetime) -> bool:
        at = self.changed_at
        return self.state in ENDED_STATES and at is not None and now - at < NEWS_PERIOD


def _find_proposal_state(proposal: Proposal) -> RouteState:
    """Returns the state of a route whose open proposal has no canary to show."""
    match proposal.phase:
        case ProposalPhase.AWAITING_APPROVAL if proposal.approver is None:
            return RouteState.APPROVAL
        case ProposalPhase.AWAITING_APPROVAL:
            return RouteState.APPROVED
        case ProposalPhase.CANARY:
            return RouteState.CANARY
        case _:
            return RouteState.EVALUATING


def describe_needs(
    statuses: Sequence[RouteStatus],
    alerts: int,
    now: datetime,
    *,
    unconfirmed: int = 0,
    others: int = 0,
    has_router: bool = True,
    mark: Callable[[str], str] = str,
) -> str:
    """Returns the overview's headline: whether a route needs a person.

    Args:
        alerts: the number of open alerts.
        unconfirmed: the number of unconfirmed break-glasses.
        others: the number of routes at rest.
        has_router: whether a router serves.
        mark: formats a route's name.
    """
    waiting_text = "a break-glass waits for a second person" if unconfirmed else ""
    if unconfirmed > 1:
        waiting_text = f"{unconfirmed:,} break-glasses wait for a second person"
    if news := list_news(statuses, now, mark=mark):
        urgent = any(s.is_urgent(now) and s.state not in ENDED_STATES for s in statuses)
        second_part = waiting_text or ("" if urgent else "no route waits for you")
        return f"{news[0]}; {second_part}" if second_part else news[0]
    if waiting_text:
        return f"{waiting_text[0].upper()}{waiting_text[1:]}"
    if not statuses and not others:
        return "No route yet"
    if not has_router:
        return f"No router answers: {START_ROUTER}"
    return _describe_rest(statuses, alerts)


def _describe_rest(statuses: Sequence[RouteStatus], alerts: int) -> str:
    """Describes what needs a person although no route waits for one."""
    if alerts:
        verb = "is" if alerts == 1 else "are"
        return f"No route waits for you; {format_quantity(alerts, 'alert')} {verb} open"
    # The control plane may not have raised their alerts yet.
    if ending_names := {ending.name for status in statuses for ending in status.endings}:
        verb = "ends or has ended" if len(ending_names) == 1 else "end or have ended"
        models = format_quantity(len(ending_names), "model in use", "models in use")
        return f"No route waits for you; {models} {verb}"
    return "No route needs you now"


def list_news(
    statuses: Sequence[RouteStatus],
    now: datetime,
    *,
    mark: Callable[[str], str] = str,
) -> Sequence[str]:
    """Lists the most important states of routes, the most urgent first.

    Args:
        mark: formats a route's name.
    """
    waiting = [status for status in statuses if status.needs_decision]
    verb = "needs" if len(waiting) == 1 else "need"
    needs = f"{format_quantity(len(waiting), 'route')} {verb} a decision: "

    def describe(*states: RouteState) -> list[str]:
        return [f"{mark(s.route.name)}: {s.state_text}" for s in statuses if s.state in states]

    groups = [
        ("", describe(RouteState.DOWN)),
        ("", describe(RouteState.UNPROVED)),
        ("", describe(*HARM_STATES)),
        ("", describe(RouteState.ON_FALLBACK)),
        (
            needs,
            [f"{mark(s.route.name)} ({s.progress_text})" for s in waiting],
        ),
        (
            "",
            [
                f"{mark(s.route.name)}: {s.state_text} {s.ended_ago(now)}"
                for s in statuses
                if s.ended_recently(now)
            ],
        ),
    ]
    return [f"{start}{_name_routes(texts)}" for start, texts in groups if texts]


def _name_routes(route_texts: Sequence[str]) -> str:
    left_over = len(route_texts) - MAX_NAMED_ROUTES
    first_texts = ", ".join(route_texts[:MAX_NAMED_ROUTES])
    return f"{first_texts} and {left_over:,} more" if left_over > 0 else first_texts


@dataclass(frozen=True, slots=True)
class Banner:
    """A notice above every page: a heading and its text."""

    heading: str
    text: str
    docs_page: str = ""
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.heading} {self.text}"


def list_switch_banners(ctx: Context, standing: Iterable[KillSwitch]) -> Sequence[Banner]:
    """Describes the switches in force.

    Args:
        standing: switches of the environment or the configuration.
    """
    return [
        _describe_switch(switch) for switch in (*standing, *freezes.list_live_switches(ctx))
    ]


def list_break_glass_banners(ctx: Context) -> Sequence[Banner]:
    """Describes the routes that serve without proof. A forged row becomes a banner, not an
    error.
    """
    page = "how-to/break-glass"
    try:
        notices = break_glass.list_notices(ctx)
    except SignatureInvalid as error:
        return [
            Banner(
                "Swapproof cannot tell which routes serve without proof.",
                str(error),
                page,
            )
        ]
    return [Banner(heading, text, page) for heading, text in notices]


def list_freeze_banners(ctx: Context, route: str | None = None) -> Sequence[Banner]:
    """Describes freezes in force.

    Args:
        route: None for all routes.
    """
    notices = freezes.list_freeze_notices(ctx, route)
    return [Banner(f.heading, f.text, "how-to/freezes", serious=False) for f in notices]


def _describe_switch(switch: KillSwitch) -> Banner:
    scope = "all routes" if switch.route is None else f"route {switch.route}"
    heading = f"✕ Kill switch: {switch.force.text} for {scope}."
    if switch.source in (SwitchSource.ENVIRONMENT, SwitchSource.CONFIG):
        end = "It ends when the router restarts without it."
    else:
        at = switch.expires_at
        until = f" or at {format_date_time(at)}" if at else ""
        end = f"It ends with `swapproof switch lift {switch.id} --reason …`{until}."
    return Banner(heading, f"{switch.actor}: {switch.reason}. {end}")
