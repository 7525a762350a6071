"""Formats the shadow stage that precedes a canary, for a terminal."""

from harness.control.shadow.stage import ShadowStage
from harness.domain.proposals.proposal import ProposalPhase
from harness.gate.text.ramp_plan import format_span


def stage_text(stage: ShadowStage) -> list[tuple[str, object]]:
    """Name and words of where it stands and what would move it."""
    policy, decided, status = stage.policy, stage.decided, stage.status
    now = stage.phase is ProposalPhase.SHADOW
    pairs = status.pairs if status else 0
    when = (
        f", about {format_span(stage.eta_s)} more at this pace"
        if stage.eta_s is not None
        else ""
    )
    return [
        ("shadow first", f"{stage.candidate.name}, whose answers nobody gets"),
        ("mirrored", f"{policy.share_bps / 100:g} % of the callers" if stage.live else "no"),
        ("pairs", f"{pairs:,} of {policy.min_pairs:,}{when}"),
        ("money", f"${stage.spent_usd:.4f} of ${policy.max_cost_usd:g}"),
        (
            "harm",
            f"{decided.distance * 100:.0f} % of the level that rejects it",
        ),
        ("now", decided.reason if now else None),
        ("next", _next(stage) if now else None),
    ]


def _next(stage: ShadowStage) -> str:
    share = f"{stage.first_bps / 100:g} %"
    return f"with its pairs and no harm the canary opens at {share}, by itself"
