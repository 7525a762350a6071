"""Patience with what failed: how long a run, or a proposal, waits before it tries again."""

from datetime import datetime, timedelta
from typing import Final

FIRST_PAUSE_S: Final = 10.0
LONGEST_PAUSE_S: Final = 900.0
AWAY: Final = " is away: "
DEFAULT_PATIENCE_S: Final = 86_400.0
# Before a comparison is measured again that failed while its providers answered: a refused key,
# a worker that died, a model that changed. Time mends few of these, and each try costs money.
RETRY_PAUSES_S: Final = (FIRST_PAUSE_S, 60.0, 600.0)


def next_pause_s(waited_s: float) -> float:
    """Returns a pause as long as the time waited so far, so that each is twice the last one."""
    return max(FIRST_PAUSE_S, waited_s)


def next_try(since: datetime, now: datetime) -> datetime:
    """Returns when an absent provider is asked again: within a quarter of an hour."""
    pause_s = min(LONGEST_PAUSE_S, next_pause_s((now - since).total_seconds()))
    return now + timedelta(seconds=pause_s)


def describe_absence(away: str, since: datetime, now: datetime) -> str:
    """Says `gemma since 19:37 UTC: connection refused`. away: the text of a ProviderAway."""
    provider, _, why = away.partition(AWAY)
    why = why.removeprefix("the call failed: ").replace(
        "ConnectionRefusedError", "connection refused"
    )
    day = "" if since.date() == now.date() else "%Y-%m-%d "
    return f"{provider} since {since:{day}%H:%M} UTC: {why}"
