"""Writes what pages say of shadows, in which a candidate answers copies of requests and no user
sees its answers: on the Canary page the one before a canary, then how many run in all,
of each what it mirrors, found and cost, and the table of those that ended.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from dashboard.text import html, labels
from dashboard.text.html import Tile, VerdictCard, escape, strong
from dashboard.text.labels import Label, Tone
from harness.control.shadow.shadows import LEFT_OUT, CheckEvidence, PairFigures, ShadowStatus
from harness.control.shadow.stage import ShadowStage
from harness.domain.formatting import format_answer_price, format_estimate, format_milliseconds
from harness.gate.shadow_stage import ShadowMove

MIRRORS = labels.Label("◐", "in shadow", labels.Tone.BETTER)
HELD = labels.Label("?", "shadow on hold", labels.Tone.UNDECIDED)
HARM = labels.Label("✕", "harm is shown", labels.Tone.WORSE, "it is rejected")
HARM_NOTE = "Over all checks of the answers together; at 100 % the proposal is rejected."
# As on a canary: from half of the rollback level on, the page shows harm.
HARM_SHOWS = 0.5
MIRRORING: Final = Label("◐", "mirroring", Tone.BETTER)
WORSE: Final = Label("✕", "worse than the incumbent", Tone.WORSE)
NO_PAIR: Final = (
    "No pair of answers yet: a pair needs a request of a mirrored caller, and the answers of "
    "both models."
)
BY_HAND: Final = "none: an approver started it"


def title(stage: ShadowStage) -> str:
    """Writes the first line of a shadow's page, as HTML."""
    name = strong(stage.candidate.name)
    if stage.decided.move is ShadowMove.HOLD:
        return f"{name} waits for its canary: its shadow is on hold"
    return f"{name} is in shadow: no user gets its answers"


def headline(stage: ShadowStage, route: str) -> str:
    """Writes what the top of the page says: state, reason and next step, as HTML."""
    heading = html.title(title(stage), f"Route {strong(route)}")
    return f'<div class="sg-top">{heading}{html.verdict(verdict_card(stage))}</div>'


def verdict_card(stage: ShadowStage) -> VerdictCard:
    share = labels.weight(stage.first_bps)
    opens = f"once enough pairs show no harm, the canary opens at {share} automatically."
    mend = "fix what is named above; swapgate shadow start mirrors more requests."
    match stage.decided.move:
        case ShadowMove.HOLD:
            return VerdictCard(label=HELD, lead=stage.decided.reason, next_step=mend)
        case ShadowMove.REJECT:
            return VerdictCard(label=HARM, lead=stage.decided.reason)
        case _:
            return VerdictCard(label=MIRRORS, lead=stage.decided.reason, next_step=opens)


def tiles(stage: ShadowStage) -> Sequence[Tile]:
    policy, status = stage.policy, stage.status
    pairs = status.pairs if status else 0
    mirrored = status.mirrored if status else 0
    when = f"about {format_estimate(stage.eta_s)} more" if stage.eta_s is not None else ""
    live = f"of {labels.weight(policy.share_bps)} of the callers" if stage.live else "ended"
    return (
        Tile("Compared pairs", f"{pairs:,} of {policy.min_pairs:,}", below=when),
        Tile("Requests mirrored", f"{mirrored:,}", below=live),
        Tile(
            "Cost",
            labels.usd(stage.spent_usd),
            below=f"of {labels.usd(policy.max_cost_usd)} at most",
        ),
    )


def tone(stage: ShadowStage) -> labels.Tone:
    distance = stage.decided.distance
    return labels.Tone.WORSE if distance >= HARM_SHOWS else labels.Tone.NEUTRAL


def check_cells(check: CheckEvidence) -> html.Row:
    return {
        "Check": escape(check.check.replace("_", " ")),
        "Both": f"{check.both:,}",
        "Incumbent alone": f"{check.incumbent_only:,}",
        "Candidate alone": f"{check.candidate_only:,}",
        "Neither": f"{check.neither:,}",
    }


def list_title(running: Sequence[ShadowStatus]) -> str:
    """Writes how many shadows run, or which candidate is worse, as HTML."""
    harmed = [status.record.shadow.candidate.name for status in running if status.harm]
    if harmed:
        verb = "is" if len(harmed) == 1 else "are"
        return f"{strong(', '.join(harmed))} {verb} worse than the incumbent in shadow"
    if not running:
        return "No shadow runs"
    verb = "runs" if len(running) == 1 else "run"
    count = labels.plural(len(running), "shadow")
    return f"{strong(count)} {verb}: no user gets a candidate's answers"


def running_parts(status: ShadowStatus, now: datetime) -> Sequence[str]:
    """Renders one that runs: state, figures, facts, and pairs by check, each to stand apart."""
    shadow = status.record.shadow
    heading = (
        f"<h2>{escape(shadow.candidate.name)} beside {escape(shadow.route)}</h2>"
        f"<p>{html.state(WORSE if status.harm else MIRRORING)} "
        f'<span class="note">{escape(labels.left(shadow.expires_at, now))}</span></p>'
    )
    parts = [html.block(heading), html.tiles(_tiles(status)), html.facts(_facts(status))]
    rows = [{**check_cells(check), "Evidence": _evidence(check)} for check in status.checks]
    return [*parts, html.table(rows) or html.note(NO_PAIR)]


def _tiles(status: ShadowStatus) -> Sequence[Tile]:
    limits = status.record.shadow.limits
    unpriced = f"and {status.unpriced:,} requests without a price" if status.unpriced else ""
    money = "" if limits.usd_per_day is None else f" of {labels.usd(limits.usd_per_day)}"
    used = status.today
    return (
        Tile(
            "Compared pairs",
            f"{status.pairs:,}",
            below=f"of {status.mirrored:,} mirrored requests",
        ),
        Tile(
            "Evidence that it is worse",
            labels.percent(status.share_of_level, 0),
            below="of the level that counts as harm",
        ),
        Tile("Cost", labels.usd(status.cost_usd), below=unpriced),
        Tile(
            "Today (UTC)",
            f"{labels.usd(used.cost_usd)}{money}",
            below=f"{used.requests:,} of {limits.requests_per_day:,} requests",
        ),
    )


def _facts(status: ShadowStatus) -> Sequence[tuple[str, str]]:
    shadow = status.record.shadow
    proposal = (
        html.link("compare", escape(shadow.proposal), id=shadow.proposal)
        if shadow.proposal
        else BY_HAND
    )
    rows = [
        ("Mirrors", escape(f"{labels.weight(shadow.limits.share_bps)} of the callers")),
        ("Until", escape(labels.date_time(shadow.expires_at))),
        ("Proposal", proposal),
        ("Started by", escape(f"{shadow.started_by}: {shadow.reason}")),
    ]
    if status.incumbent is not None and status.candidate is not None:
        rows += [
            ("Incumbent, mean", escape(_figures(status.incumbent))),
            ("Candidate, mean", escape(_figures(status.candidate))),
        ]
    if status.similarity is not None:
        rows.append(("Words in both answers", escape(labels.percent(status.similarity, 0))))
    rows += [
        (f"{number:,} not mirrored", escape(LEFT_OUT[name]))
        for name, number in status.left_out.items()
    ]
    return rows


def _figures(side: PairFigures) -> str:
    return (
        f"{format_milliseconds(side.ms)}, {side.output_tokens:,.0f} tokens, "
        f"{side.characters:,.0f} characters, {format_answer_price(side.cost_usd)}"
    )


def _evidence(check: CheckEvidence) -> str:
    share = escape(labels.percent(check.share_of_level, 0))
    tone = Tone.WORSE if check.share_of_level >= HARM_SHOWS else Tone.NEUTRAL
    return f'<span class="{tone}">{share} of the level</span>'


def ended_cells(status: ShadowStatus) -> html.Row:
    shadow = status.record.shadow
    at = labels.date_time(status.record.ended_at or shadow.expires_at)
    return {
        "Route": strong(shadow.route),
        "Candidate": escape(shadow.candidate.name),
        "State": f'{escape(status.state)}<br><span class="note">{escape(at)}</span>',
        "Mirrored": f"{status.mirrored:,}",
        "Pairs": f"{status.pairs:,}",
        "Cost": escape(labels.usd(status.cost_usd)),
        "By": escape(shadow.started_by),
        "Why": escape(shadow.reason),
    }
