"""Writes the Canary page's texts while the candidate is in shadow, that is, answers copies of
requests which no user sees: title, verdict card, tiles, and pairs counted by check.
"""

from collections.abc import Sequence

from dashboard.text import html, labels
from dashboard.text.html import Tile, VerdictCard, strong
from harness.control.shadow.stage import ShadowStage
from harness.domain.formatting import format_estimate
from harness.gate.shadow_stage import ShadowMove

MIRRORS = labels.Label("◐", "in shadow", labels.Tone.BETTER)
HELD = labels.Label("?", "shadow on hold", labels.Tone.UNDECIDED)
HARM = labels.Label("✕", "harm is shown", labels.Tone.WORSE, "it is rejected")
HARM_NOTE = "Over all checks of the answers together; at 100 % the proposal is rejected."
CHECK_HEADS = ("Check", "Both", "Incumbent alone", "Candidate alone", "Neither")
# As on a canary: from half of the rollback level on, the page shows harm.
HARM_SHOWS = 0.5


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


def checks(stage: ShadowStage) -> Sequence[Sequence[str]]:
    return [
        [
            check.check.replace("_", " "),
            f"{check.both:,}",
            f"{check.incumbent_only:,}",
            f"{check.candidate_only:,}",
            f"{check.neither:,}",
        ]
        for check in (stage.status.checks if stage.status else ())
    ]
