"""Sends a share of requests to fallbacks, so that Swapgate knows that they work (B6). Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from harness.frame.errors import InputError
from harness.routing.table import BUCKETS, Route, Stakes, hash_bucket

MAX_KEEP_WARM_BPS: Final = 1_000
_SHARE: Final = re.compile(r"\s*(?P<number>[0-9]{1,5}(\.[0-9]{1,4})?)\s*(?P<percent>%)?\s*")


@dataclass(frozen=True, slots=True)
class KeepWarm:
    """The share of requests that each fallback gets. Raises InputError above 10 %."""

    # Share of the route's requests for each warmed target (1 % is 100); 0 switches it off.
    share_bps: int = 100
    side_effects: bool = False  # the tools have side effects: then no request is drawn

    def __post_init__(self) -> None:
        if not 0 <= self.share_bps <= MAX_KEEP_WARM_BPS:
            raise InputError(
                f"keep_warm: the share is 0 to {MAX_KEEP_WARM_BPS} bps (10 %), not "
                f"{self.share_bps}"
            )


def parse_keep_warm_share(text: str | int) -> int:
    """Parses a share such as `1%`, `0.5 %` or 100 (basis points). Raises InputError."""
    return KeepWarm(parse_share_bps(text, what="keep_warm")).share_bps


def parse_share_bps(text: str | int, *, what: str) -> int:
    """Parses a share of any size into basis points. what: the setting's name, for the error."""
    found = _SHARE.fullmatch(str(text))
    if found is None:
        raise InputError(f"{what}: {text!r} is not a share: write 1% or basis points (100)")
    number = Decimal(found["number"]) * (100 if found["percent"] else 1)
    if number != int(number):
        raise InputError(f"{what}: {text!r} is not in whole basis points (0.01 %)")
    return int(number)


def keep_warm_targets(route: Route, provider_of: Mapping[str, str]) -> tuple[str, ...]:
    first: dict[str, str] = {}
    for fallback in route.fallbacks:
        settings = route.settings
        if fallback in settings.capable or settings.stakes is not Stakes.HIGH:
            first.setdefault(provider_of[fallback], fallback)
    first.pop(provider_of[route.incumbent], None)
    canary = route.canary.target if route.canary else None
    return tuple(id_ for id_ in first.values() if id_ != canary)


def draw_keep_warm(
    key: str,
    *,
    route: str,
    day: date,
    targets: Sequence[str],
    healthy: Callable[[str], bool],
    setting: KeepWarm,
) -> str | None:
    """Draws the fallback that answers a request. A higher share keeps every drawn key."""
    if not targets or setting.side_effects or not setting.share_bps:
        return None
    width = BUCKETS // len(targets)
    slot, place = divmod(hash_bucket(key, salt=f"keep-warm:{route}:{day.isoformat()}"), width)
    if slot >= len(targets) or place >= setting.share_bps or not healthy(targets[slot]):
        return None
    return targets[slot]
