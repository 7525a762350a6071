"""Labels of states (symbol, words, tone), figures and their changes in words, and times in the
reader's zone.

Words that the command line and the API show too come from `harness`; this module adds only the
symbols and tones of the dashboard. Nothing here renders HTML.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from harness.canary.canary_state import CanaryState
from harness.frame.formatting import (
    format_age,
    format_bps,
    format_count,
    format_latency,
    format_percent,
    format_points,
    format_quantity,
    format_range,
    format_span,
    format_usd,
)
from harness.gate.canary_sentences import CanaryStateKind, end_words
from harness.gate.online.rollout import CanaryEnd
from harness.gate.suite_plan import Claim
from harness.gate.verdict import VERDICTS, BaseVerdict
from harness.operations.route_status import RouteState
from harness.routing.proposal import Proposal, ProposalPhase, ProposalView

RUNBOOK: Final = "Step by step"  # the link to an alert's section of the runbook
# Changes below this share of the former value are reported as "no clear change".
SMALLEST_CLEAR_CHANGE: Final = 0.02


class Tone(StrEnum):
    """The meanings of colours. A symbol and words always accompany a colour."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True)
class Label:
    """A state as people see it. The symbol lets a reader tell states apart without colours."""

    symbol: str  # one character
    words: str
    tone: Tone
    advice: str = ""  # follows the words in a headline


VERDICT_LABELS: Final[Mapping[str, Label]] = {
    "passed": Label(
        "✓", VERDICTS["passed"].words, Tone.BETTER, "the candidate may replace the model"
    ),
    "failed": Label("✕", VERDICTS["failed"].words, Tone.WORSE, "do not swap"),
    "inconclusive": Label(
        "?",
        VERDICTS["inconclusive"].words,
        Tone.UNDECIDED,
        "do not swap yet",
    ),
    "harness_mismatch": Label(
        "?",
        VERDICTS["harness_mismatch"].words,
        Tone.UNDECIDED,
        "it loses by format, not by content",
    ),
    "infra_error": Label(
        "?",
        VERDICTS["infra_error"].words,
        Tone.UNDECIDED,
        "this does not count against the candidate",
    ),
    "running": Label("◷", "NOT DECIDED YET", Tone.NEUTRAL),
}

# Results of a slice's test. The test can prove a loss, but not its absence.
SLICE_LABELS: Final[Mapping[str, Label]] = {
    "worse": Label("✕", "shown worse", Tone.WORSE),
    "kept": Label("=", "no loss shown", Tone.NEUTRAL),
    "untested": Label("?", "too few items", Tone.UNDECIDED),
}

MEMBER_LABELS: Final[Mapping[str, Label]] = {
    "member": Label("◐", "counts in the mean", Tone.NEUTRAL)
}

PHASE_LABELS: Final[Mapping[ProposalPhase, Label]] = {
    ProposalPhase.PROPOSED: Label("◷", "queued for evaluation", Tone.NEUTRAL),
    ProposalPhase.EVALUATING: Label("◷", "being evaluated", Tone.NEUTRAL),
    ProposalPhase.AWAITING_APPROVAL: Label("?", "waits for approval", Tone.UNDECIDED),
    ProposalPhase.CANARY: Label("◐", "in canary", Tone.BETTER),
    ProposalPhase.PROMOTED: Label("✓", "promoted", Tone.BETTER),
    ProposalPhase.REJECTED: Label("✕", "rejected", Tone.WORSE),
    ProposalPhase.ROLLED_BACK: Label("✕", end_words(CanaryEnd.ROLLED_BACK), Tone.WORSE),
    ProposalPhase.CANCELLED: Label("=", "cancelled", Tone.NEUTRAL),
}


def phase_label(proposal: Proposal) -> Label:
    """Returns the label of a proposal's phase, and of its end once it has ended.

    The label is neutral if a promoted candidate no longer serves, or if a person closed the
    proposal.
    """
    label = PHASE_LABELS[proposal.phase]
    if isinstance(proposal, ProposalView) and proposal.serves is False:
        return Label("=", proposal.phase_text, Tone.NEUTRAL)
    if proposal.phase is ProposalPhase.AWAITING_APPROVAL and proposal.approver is not None:
        return Label("◷", RouteState.APPROVED.value, Tone.NEUTRAL)
    if proposal.end in (None, CanaryEnd.ROLLED_BACK) and not proposal.closed:
        return label
    # Neutral, because a person's decision is not a warning.
    return Label(label.symbol, proposal.phase_text, Tone.NEUTRAL)


CANARY_SIGNS: Final[Mapping[CanaryStateKind, tuple[str, Tone]]] = {
    CanaryStateKind.ROLLED_BACK: ("✕", Tone.WORSE),
    CanaryStateKind.ABORTED: ("✕", Tone.NEUTRAL),
    CanaryStateKind.PROMOTION_ROLLED_BACK: ("✕", Tone.NEUTRAL),
    CanaryStateKind.HARM: ("✕", Tone.WORSE),
    CanaryStateKind.PAUSED: ("?", Tone.UNDECIDED),
    CanaryStateKind.HELD: ("?", Tone.UNDECIDED),
    CanaryStateKind.SUSPECT: ("▲", Tone.UNDECIDED),
    CanaryStateKind.EMPTY: ("◷", Tone.NEUTRAL),
    CanaryStateKind.RUNNING: ("◐", Tone.NEUTRAL),
    CanaryStateKind.HEALTHY: ("◐", Tone.BETTER),
    CanaryStateKind.BAKING: ("◐", Tone.BETTER),
    CanaryStateKind.UNCOMPARED: ("?", Tone.UNDECIDED),
    CanaryStateKind.PROMOTED: ("✓", Tone.BETTER),
}


def canary_label(state: CanaryState) -> Label:
    symbol, tone = CANARY_SIGNS[state.kind]
    return Label(symbol, state.words, tone)


CLAIMS: Final[Mapping[Claim, str]] = {
    Claim.SUPERIOR: "better",
    Claim.NON_INFERIOR: "equal or better",
    Claim.CHEAPER: "cheaper and not worse",
}


def verdict_label(verdict: BaseVerdict | None) -> Label:
    """Returns the label of a verdict; None has the label of a verdict that is still open."""
    return VERDICT_LABELS[verdict.outcome if verdict else "running"]


# The CLI, the API and the dashboard write figures alike.
points: Final = format_points
weight: Final = format_bps
count: Final = format_count
plural: Final = format_quantity
usd: Final = format_usd
seconds: Final = format_latency
span: Final = format_span
age: Final = format_age


def reader_zone() -> tzinfo:
    """Returns the zone of the reader's browser; UTC if the browser names no known zone."""
    # Outside of a visitor's session, Streamlit would log a warning.
    if get_script_run_ctx(suppress_warning=True) is None:
        return UTC
    name = st.context.timezone
    try:
        return ZoneInfo(name) if name else UTC
    except (KeyError, ValueError):
        return UTC


def to_local(at: datetime) -> datetime:
    """Converts a time to the reader's zone, with a fixed offset whose name begins with UTC."""
    return at.astimezone(timezone(at.astimezone(reader_zone()).utcoffset() or timedelta()))


def date_time(at: datetime, clock: str = "%H:%M") -> str:
    """Writes a time in the reader's zone: `2 Nov 2026 06:41 UTC+01:00`.

    Args:
        clock: `strftime`'s format of the time of day.
    """
    local = to_local(at)
    return f"{day(at)} {local.strftime(clock)} {local.tzname()}"


def day(at: datetime) -> str:
    """Writes a day in the reader's zone: `2 Nov 2026`."""
    return to_local(at).strftime("%d %b %Y").removeprefix("0")


def few(names: Sequence[str], most: int) -> str:
    """Joins at most `most` names, and counts the names that it leaves out."""
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{rest}"


def percent(share: float | None, digits: int = 1) -> str:
    return format_percent(share, digits)


def left(end: datetime, now: datetime) -> str:
    """Writes the time that is left: `6 d 4 h left`, `no time left`."""
    remaining_s = (end - now).total_seconds()
    return f"{span(remaining_s)} left" if remaining_s > 0 else "no time left"


def time_of_day(at: datetime) -> str:
    """Writes a time of day in the reader's zone: `06:41:05 UTC+01:00`."""
    return to_local(at).strftime("%H:%M:%S %Z")


@dataclass(frozen=True, slots=True)
class FigureChange:
    """A figure's change from its former value. tone: whether the change is good."""

    symbol: str
    words: str  # the change, such as `63 % cheaper`
    tone: Tone
    was: str  # the former value, such as `was $1.12`


def interval(bounds: tuple[float, float] | None, write: Callable[[float | None], str]) -> str:
    """Writes a 95 % interval; empty without one.

    Args:
        write: formats each bound.
    """
    return "" if bounds is None else f"95 % CI {format_range(bounds, write)}"


def describe_change(
    new: float | None,
    old: float | None,
    write: Callable[[float | None], str],
    words: tuple[str, str],
    *,
    amount: Callable[[float, float], str] | None = None,
    least: float = 0.0,
) -> FigureChange:
    """Describes a change of a figure for which less is better.

    Args:
        write: formats the figure.
        words: name a decrease, and an increase.
        amount: formats a difference, given the former value.
        least: the smallest difference to report, in addition to `SMALLEST_CLEAR_CHANGE`.
    """
    former = f"was {write(old)}"
    if new is None or old is None:
        return FigureChange("=", "cannot be compared,", Tone.NEUTRAL, former)
    difference = new - old
    if abs(difference) < max(least, SMALLEST_CLEAR_CHANGE * old) or write(new) == write(old):
        return FigureChange("=", "no clear change,", Tone.NEUTRAL, former)
    size = amount(abs(difference), old) if amount else write(abs(difference))
    if difference < 0:
        return FigureChange("▼", f"{size} {words[0]},", Tone.BETTER, former)
    return FigureChange("▲", f"{size} {words[1]},", Tone.WORSE, former)
