"""Checks the providers that routes use, so that an outage shows without a request.

A check asks for the provider's list of models and reads only the head of the answer. It costs
nothing, and is never a completion. Like the router's calls, it uses no proxy, follows no
redirect, and refuses the addresses that `router.allow_addresses` does not allow.

Only the leading control process checks. Routers do not read the results; they have health
checks of their own (`router.observers.health_checks`).
"""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alerts import AlertNotice
from harness.frame.errors import ConfigError, SwapproofError
from harness.frame.records.transaction import Transaction
from harness.providers.calls.probe import ProbeReply
from harness.providers.credential import lacks_key
from harness.providers.records import Providers
from harness.providers.registry import provider_secrets
from harness.providers.target import Provider, Target
from harness.routing.context import RoutingContext
from harness.routing.records.observations import Observations

# As many checks in a row must fail as requests of a route (`outage_rule.MIN_REQUESTS`).
FAILED_CHECKS: Final = 3
# Short, so that three hanging checks end within 30 s of the outage at an interval of 20 s.
CHECK_TIMEOUT_S: Final = 2.5
REPEAT_PAUSE_S: Final = 0.5
AT_ONCE: Final = 16
WATCH_S: Final = 1.0  # how often the watch looks for a due check
LOOK_S: Final = 5.0  # how often it looks for new providers
# The statuses by which a server, or a gateway before it, says that it cannot serve now. Every
# other status shows that the provider answers: 401 without a valid key, 404 without a list.
AWAY_STATUSES: Final = frozenset({502, 503, 504, 520, 521, 522, 523, 524, 529})
# Routers report within seconds, so these minutes show whether requests get answers.
_ANSWERS_READ: Final = timedelta(minutes=3)


def find_fault(reply: ProbeReply) -> str:
    """Returns why a check failed; empty if the provider answers."""
    is_away = reply.status is None or reply.status in AWAY_STATUSES
    return reply.error if is_away else ""


@dataclass(frozen=True, slots=True)
class ProviderState:
    """The last result of a provider's checks, as this process remembers it.

    fault: why FAILED_CHECKS checks in a row failed; empty if the provider answers.
    since: when the first of the failed checks began.
    is_disproved: a request got an answer after `since`, so the failed checks do not show an
    outage.
    """

    provider: Provider
    checked_at_s: float  # monotonic seconds
    fault: str = ""
    since: datetime | None = None
    is_disproved: bool = False


def update_state(
    state: ProviderState | None,
    provider: Provider,
    fault: str,
    began_at: datetime,
    checked_at_s: float,
) -> ProviderState:
    """Returns the state after checks.

    Args:
        state: the former; None for a new or changed provider.
        fault: as in `ProviderState`.
        began_at: when the first of these checks began.
    """
    if not fault:
        return ProviderState(provider, checked_at_s)
    if state is None or not state.fault:
        return ProviderState(provider, checked_at_s, fault, began_at)
    return replace(state, checked_at_s=checked_at_s, fault=fault)


def build_notice(state: ProviderState) -> AlertNotice | None:
    """Builds the alert about a provider that does not answer; None for one that answers."""
    if not state.fault or state.is_disproved:
        return None
    name = state.provider.name
    return AlertNotice(
        f"provider {name}",
        f"provider {name} does not answer",
        f"{FAILED_CHECKS} checks in a row failed: {state.fault}.",
    )


class ProviderWatch:
    """Checks each provider of a route every `interval_s` seconds, and opens or ends its alert.

    After a failed check, the next one follows at once; FAILED_CHECKS in a row open the alert,
    one answer ends it. A new process changes no alert before its first check. interval_s: 0 for
    no checks; open alerts then end. pause: waits for seconds.
    """

    def __init__(self, interval_s: float, pause: Callable[[float], None] = time.sleep) -> None:
        self._interval_s = interval_s
        self._pause = pause
        self._states: dict[str, ProviderState] = {}
        self._next_look_s = -math.inf  # monotonic seconds

    def __call__(self, ctx: RoutingContext) -> None:
        if ctx.clock.monotonic() < self._next_look_s:
            return
        uses: Mapping[str, Sequence[Target]] = {}
        providers: Mapping[str, Provider] = {}
        if self._interval_s:
            with ctx.store.read() as tx:
                uses = ctx.uses.routed_targets(tx)
                used = {target.provider for targets in uses.values() for target in targets}
                providers = {
                    name: provider
                    for name, provider in Providers(tx).all().items()
                    if name in used
                }
        self._states = {
            name: state
            for name, state in self._states.items()
            if providers.get(name) == state.provider
        }
        for _, name in sorted(alerts.list_open(ctx, AlertKind.PROVIDER_DOWN)):
            if name not in providers:
                alerts.update_alert(ctx, AlertKind.PROVIDER_DOWN, name, None)
        for state in self._check(ctx, self._list_due(ctx, providers)):
            with ctx.store.read() as tx:
                checked = _compare_with_requests(tx, uses, state)
            name = state.provider.name
            self._states[name] = checked
            alerts.update_alert(ctx, AlertKind.PROVIDER_DOWN, name, build_notice(checked))
        dues_s = [state.checked_at_s + self._interval_s for state in self._states.values()]
        self._next_look_s = min([ctx.clock.monotonic() + LOOK_S, *dues_s])

    def _list_due(
        self, ctx: RoutingContext, providers: Mapping[str, Provider]
    ) -> Sequence[Provider]:
        now_s = ctx.clock.monotonic()
        due = []
        for name, provider in sorted(providers.items()):
            state = self._states.get(name)
            last_s = state.checked_at_s if state is not None else -math.inf
            if now_s - last_s >= self._interval_s:
                due.append(provider)
        return due

    def _check(
        self, ctx: RoutingContext, providers: Collection[Provider]
    ) -> Sequence[ProviderState]:
        """Checks providers in parallel. Returns their states."""
        if not providers:
            return ()
        began_at = ctx.clock.now()
        began_at_s = ctx.clock.monotonic()

        def check(provider: Provider) -> ProviderState:
            former = self._states.get(provider.name)
            checks = 1 if former is not None and former.fault else FAILED_CHECKS
            fault = self._find_lasting_fault(ctx, provider, checks)
            return update_state(former, provider, fault, began_at, began_at_s)

        with ThreadPoolExecutor(AT_ONCE, "provider check") as pool:
            return list(pool.map(check, providers))

    def _find_lasting_fault(self, ctx: RoutingContext, provider: Provider, checks: int) -> str:
        """Returns the last fault if all checks fail; empty if one gets an answer.

        Does not call a provider without an address, and none without its key: routers do not
        call it either, and report the missing key. Raises ConfigError in a process that calls
        no provider.
        """
        if ctx.probe is None:
            raise ConfigError("this process does not call providers")
        try:
            called = provider_secrets.decrypt_headers(provider, ctx.cipher)
            keys = provider_secrets.keys_of_provider(ctx, called)
        except SwapproofError as error:
            if error.retryable:
                raise
            return ""  # an unreadable secret is another fault, which `doctor` reports
        if not called.api_base or lacks_key(called, keys):
            return ""
        fault = ""
        for number in range(checks):
            if number:
                self._pause(REPEAT_PAUSE_S)
            secret = keys[0].secret if keys else ""
            fault = find_fault(ctx.probe.reach(called, secret, CHECK_TIMEOUT_S))
            if not fault:
                break
        return fault


def _compare_with_requests(
    tx: Transaction,
    uses: Mapping[str, Sequence[Target]],
    state: ProviderState,
) -> ProviderState:
    """Marks failed checks as disproved if a request got an answer in a minute that began later.

    A server may answer requests and not its list.

    Args:
        uses: the targets of each route, by name.
    """
    if state.since is None or state.is_disproved:
        return state
    provider = state.provider.name
    targets = {t.id for used in uses.values() for t in used if t.provider == provider}
    routes = [name for name, used in uses.items() if any(t.id in targets for t in used)]
    since = max(state.since, tx.now() - _ANSWERS_READ)
    minutes = Observations(tx).traffic_of(routes, since=since)
    has_answered = any(
        row.target in targets and row.requests > row.charged + row.refused + row.unanswered
        for rows in minutes.values()
        for row in rows
        if row.minute >= state.since
    )
    return replace(state, is_disproved=has_answered)
