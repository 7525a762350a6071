"""A route's fallback chain with the evidence of each of its models, as HTML."""

from collections.abc import Sequence

from dashboard.text import html, labels
from dashboard.text.html import escape
from harness.control.routing.fallback_chain import ChainEntry
from harness.domain.routing.evidence import EvidenceKind


def fallback_table(route: str, chain: Sequence[ChainEntry]) -> str:
    """Empty without a chain."""
    if not chain:
        return ""
    rows = [
        (
            str(place),
            escape(entry.target.name),
            "yes" if entry.capable else "no",
            escape(evidence_text(entry)),
        )
        for place, entry in enumerate(chain, 1)
    ]
    heads = ("Place", "Model", "Enough for high stakes", "Evidence")
    shown = html.section("Fallbacks", "Asked in this order when the route's model fails.")
    return expired_waivers(route, chain) + shown + html.table(heads, rows)


def expired_waivers(route: str, chain: Sequence[ChainEntry]) -> str:
    names = ", ".join(each.target.name for each in chain if each.waiver_expired)
    if not names:
        return ""
    words = (
        f"{names} goes on serving, but nobody can change this route and keep it. Take it out "
        f"with `swapgate route fallback remove {route} …`, or bring evidence."
    )
    return html.banner("A waiver has expired.", words)


def evidence_text(entry: ChainEntry) -> str:
    """In words: why it may serve."""
    match entry.evidence:
        case EvidenceKind.BASELINE:
            return "baseline: the route was created with it"
        case EvidenceKind.VERDICT:
            return f"passed: verdict {entry.verdict}"
        case EvidenceKind.WAIVER:
            waiver = entry.waiver
            if waiver is None:
                return "waiver"
            until = "expired" if entry.waiver_expired else "until"
            at = labels.date_time(waiver.expires_at)
            return f"waiver of {waiver.author}, {until} {at}: {waiver.reason}"
