"""Reads how much of their rates client keys use at this moment: from the book in which the
routers of this machine keep it, whatever process looks.
"""

from collections.abc import Iterable, Mapping, Sequence

from harness.app.installation import Installation
from harness.control.operations.keys import KeySummary
from harness.domain.reliability.rate_limits import LimitStatus, RateState, limit_statuses
from router.access import rate_limits


def load_rate_use(
    installation: Installation, keys: Iterable[KeySummary]
) -> Mapping[str, Sequence[LimitStatus]] | None:
    """Loads how the rate limits of keys stand, by the key's id; keys without one are left out.

    None where no router has a book here: it runs on another machine, or never ran.
    """
    limited = {key.id: key.limits.rate for key in keys if key.limits is not None}
    clock = installation.clock
    now = clock.monotonic()
    try:
        states = rate_limits.read_rates(
            installation.settings.home / rate_limits.BOOK,
            limited,
            since=clock.now().timestamp() - now,
        )
    except OSError:
        return None
    found = {
        id_: limit_statuses(states.get(id_, RateState()), rate, now)
        for id_, rate in limited.items()
    }
    return {id_: statuses for id_, statuses in found.items() if statuses}
