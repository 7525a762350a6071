"""Notes which client keys use each target, and which callers it fails. So one caller whose
requests make a target fail cannot close it for the others.

A prompt may cause a 500, an empty answer, or a firewall's 403. Such failures count against
the target only after several callers got them. `router.request.settlement` asks before it
counts a failure; `router.request.leaving` reads the keys. Times are on the event loop's clock.
"""

from typing import Final

# Of several client keys that use a target, at least this many must get failures.
SEVERAL_KEYS: Final = 2
# How many failed callers a target keeps. More of them change no decision.
MOST_FAILED: Final = 100
# The sticky key, which names a person, an application or a conversation; and the client key.
Caller = tuple[str, str]


class TargetUsers:
    """The users of one worker's targets in the last `window_s`, for one event loop.

    used_at: when each client key last began an attempt, by target and key. last_answered: the
    caller of each target's latest good answer. `dispatch` and `settlement` write them for each
    attempt, because a call would cost more.
    """

    def __init__(self, window_s: float) -> None:
        self.used_at: dict[tuple[str, str], float] = {}
        self.last_answered: dict[str, Caller] = {}
        self._window_s = window_s
        self._failed_at: dict[str, dict[Caller, float]] = {}

    def keys(self, target: str, since: float, now: float) -> frozenset[str]:
        """Returns the client keys that used a target since a time. Forgets uses before the
        window.

        Args:
            target: empty for any.

        The router's own requests have no key.
        """
        oldest = now - self._window_s
        self.used_at = {use: at for use, at in self.used_at.items() if at > oldest}
        return frozenset(
            key
            for (used_target, key), at in self.used_at.items()
            if key and at >= since and used_target in (target, target or used_target)
        )

    def fails_one_key(
        self,
        target: str,
        caller: Caller,
        since: float,
        now: float,
    ) -> bool:
        """Notes a caller's failure. Returns whether the target fails for a single client key,
        although another key has used it since `since`.
        """
        failed_at = self.find_failed_callers(target, now)
        if len(failed_at) < MOST_FAILED:
            failed_at[caller] = now
        failed_keys = {key for _, key in failed_at}
        if len(failed_keys) >= SEVERAL_KEYS:
            return False
        return not self.keys(target, since, now) <= failed_keys

    def find_failed_callers(self, target: str, now: float) -> dict[Caller, float]:
        """Returns when each caller last got a failure of a target, within the window."""
        failed_at = self._failed_at.get(target, {})
        failed_at = {
            caller: at for caller, at in failed_at.items() if at > now - self._window_s
        }
        self._failed_at[target] = failed_at
        return failed_at
