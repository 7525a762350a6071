"""Formats what only the command line shows: times, prices, evidence of harm. Figures are
written by `harness.domain.formatting`.
"""

from datetime import UTC, datetime

from harness.domain.formatting import DASH, format_harm
from harness.domain.routing.target import Price, Provider, Target


def timestamp(moment: datetime | None) -> str:
    """Writes a moment in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if moment else DASH


def known_price(target: Target, provider: Provider | None) -> Price | None:
    """The target's price at its provider; None where it is not known."""
    return provider.prices.get(target.model) if provider else None


def harm(distance_to_trip: float) -> str:
    return f"evidence of harm: {format_harm(distance_to_trip)}"
