"""Reports users' requests, the limits in providers' headers and 429s by account, so that calls
without a user leave the users their share (`harness.routing.reliability.users_first`).

Most requests cost nothing here. Once a second, `update` marks each target, and the router reads
only the next answer of a marked target. The thread that follows the store shares the reports.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from harness.evals.account_meter import AccountMeter
from harness.frame.people.limits import MINUTE_S
from harness.providers.credential import ProviderKey
from harness.routing.reliability.users_first import Permit, account_of
from router.frame.database import RouterDatabase
from router.health.provider_keys import ProviderKeys
from router.recording.metrics import RouterMetrics
from router.snapshot.compiled import CompiledSnapshot, CompiledTarget

# A count of fewer seconds says too little about a minute.
LEAST_COUNTED_S: Final = 5.0
RawHeaders = Iterable[tuple[bytes, bytes]]


class _Count(NamedTuple):
    """The counts of a target since the worker began."""

    at: float  # monotonic seconds
    requests: int
    tokens: int


class AccountWatch:
    """Watches the accounts of one worker, for its event loop.

    due: ids of the targets whose next answer is to be read.
    """

    def __init__(
        self,
        meter: AccountMeter,
        metrics: RouterMetrics,
        keys: ProviderKeys,
        monotonic: Callable[[], float],
    ) -> None:
        self.due: set[str] = set()
        self._meter = meter
        self._keys = keys
        self._metrics = metrics
        self._monotonic = monotonic
        self._began_at_s = monotonic()
        self._serving: CompiledSnapshot | None = None
        self._targets: Mapping[str, CompiledTarget] = {}  # by name
        # The counts of each target's last minute, the oldest first; by its name.
        self._counts: dict[str, deque[_Count]] = {}
        self._checks: Counter[str] = Counter()  # health checks by the target's name

    def share(self, store: RouterDatabase) -> None:
        """Exchanges reports with all processes. Raises StoreUnavailable."""
        self._meter.refresh(store.loads)

    def note_answer(
        self,
        upstream: CompiledTarget,
        key: ProviderKey | None,
        headers: RawHeaders,
    ) -> None:
        """Reads the answer of a target that was due."""
        self.due.discard(upstream.id)
        headers_text = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in headers
        }
        account = _build_account_id(upstream, key)
        self._meter.note_answer(
            account, upstream.provider.name, upstream.target.model, headers_text
        )

    def note_refusal(
        self,
        upstream: CompiledTarget,
        key: ProviderKey | None,
        headers: Mapping[str, str],
        *,
        of_user: bool,
    ) -> None:
        """Notes a 429.

        Args:
            of_user: a user waited for the call.
        """
        self._meter.note_refusal(
            _build_account_id(upstream, key),
            upstream.provider.name,
            upstream.target.model,
            headers,
            of_user=of_user,
        )

    def permit(self, upstream: CompiledTarget) -> Permit:
        """Returns the permit for the next call to a target that no user waits for."""
        account = _build_account_id(upstream, self._keys.key(upstream))
        return self._meter.permit(account, upstream.target.model)

    def note_call(self, upstream: CompiledTarget, key: ProviderKey | None) -> None:
        """Notes a call that no user waits for."""
        self._meter.note_call(_build_account_id(upstream, key), upstream.provider.name)

    def note_check(self, upstream: CompiledTarget) -> None:
        """Notes a health check, which the metrics count among the attempts."""
        self._checks[upstream.name] += 1

    def update(self, serving: CompiledSnapshot) -> None:
        """Marks the targets, and reports their users' last minute. Call it once a second."""
        if serving is not self._serving:
            self._serving = serving
            self._targets = {
                upstream.name: upstream
                for route in serving.routes.values()
                for upstream in route.upstreams.values()
            }
        self.due.update(upstream.id for upstream in self._targets.values())
        self._add_counts()
        sums: dict[tuple[str, str], tuple[float, float]] = {}
        for name in self._counts:
            upstream = self._targets.get(name)
            if upstream is None:
                continue
            requests, tokens = self._sum_last_minute(name)
            # A key may get all requests of its provider, so each key counts them all.
            for key in upstream.keys or (None,):
                account = _build_account_id(upstream, key), upstream.provider.name
                sums_before = sums.get(account, (0.0, 0.0))
                sums[account] = sums_before[0] + requests, sums_before[1] + tokens
        for (account_id, provider), (requests, tokens) in sums.items():
            self._meter.note_users(account_id, provider, requests, tokens)

    def _add_counts(self) -> None:
        """Adds the present counts of targets whose counts changed."""
        now = self._monotonic()
        for name, (attempts, tokens) in self._metrics.count_targets().items():
            requests = attempts - self._checks[name]
            counts = self._counts.get(name)
            if counts is None:
                counts = self._counts[name] = deque([_Count(self._began_at_s, 0, 0)])
            if counts[-1][1:] != (requests, tokens):
                counts.append(_Count(now, requests, tokens))
            while len(counts) > 1 and now - counts[1].at >= MINUTE_S:
                counts.popleft()

    def _sum_last_minute(self, name: str) -> tuple[float, float]:
        """Returns a target's requests and tokens in the last minute. In the worker's first
        minute, it extrapolates, because an uncounted time is unknown and not idle.
        """
        now = self._monotonic()
        counts = self._counts[name]
        counted_s = max(LEAST_COUNTED_S, min(MINUTE_S, now - self._began_at_s))
        factor = MINUTE_S / counted_s
        first = counts[0]
        last = counts[-1]
        return (last.requests - first.requests) * factor, (last.tokens - first.tokens) * factor


def _build_account_id(upstream: CompiledTarget, key: ProviderKey | None) -> str:
    return account_of(upstream.provider.api_base, key.secret if key else "")
