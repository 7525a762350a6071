"""Which callers a shadow's evidence has counted: each once, with the first of its requests.

Two requests of one caller are no two draws: who repeats a prompt would prove anything with it.
One of these serves all workers of a router. It forgets when the router ends, as ledgers do.
"""

from collections import OrderedDict
from typing import Final

from harness.domain.shadow.shadow import Shadow

MAX_KEYS: Final = 500_000
MAX_SUBJECTS: Final = 256


def shadow_subject(shadow: Shadow) -> str:
    """All shadows of one proposal are evidence together."""
    return shadow.proposal or shadow.id


class ShadowUnits:
    """At most max_keys of a subject are remembered; later ones are mirrored and not counted.

    Of more than MAX_SUBJECTS, those that were mirrored longest ago are forgotten.
    """

    def __init__(self, *, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._seen: OrderedDict[str, set[int]] = OrderedDict()

    def is_first(self, about: str, key: str | int) -> bool:
        """Asked when a request is sent to the candidate, before any outcome is known.

        key: the sticky key, or a hash of it that is the same in every process.
        """
        seen = self._seen.setdefault(about, set())
        self._seen.move_to_end(about)
        if len(self._seen) > MAX_SUBJECTS:
            self._seen.popitem(last=False)
        # hash() is salted per process: fine for a memory that ends with it.
        known = hash(key)
        if known in seen or len(seen) >= self._max_keys:
            return False
        seen.add(known)
        return True
