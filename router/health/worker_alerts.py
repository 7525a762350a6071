"""Sends a worker's alerts, and ends each alert when its cause ends. No request waits for them.

Other parts report causes here: breakers, keys, faults, aborts. A timer looks for causes
without an event of their own, such as a refused revision. The control plane decides
who gets an alert (`harness.frame.alerts`); this module has no address and no secret.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta
from typing import Final

from harness.frame.alerts.alert import Alert, AlertEvent, AlertKind
from harness.frame.failures import FAILURE_RULES, FailureClass
from harness.frame.formatting import format_percent
from harness.frame.plain_data import to_plain
from harness.frame.ports import Clock
from harness.gate.canary_sentences import guard_sentence
from harness.routing.reliability.breaker import Breaker, BreakerState
from harness.routing.reliability.failover import keep_sentence
from router.frame.failure import ProviderWords, UpstreamFailed
from router.health.target_health import TargetHealth
from router.protocols.caller_names import OPENING
from router.recording.internal_errors import EventLog
from router.recording.port import Recording
from router.recording.shared_files import LocalAbort
from router.recording.sums import CallerShares
from router.snapshot.compiled import CompiledSnapshot
from router.snapshot.holder import SnapshotHolder
from router.upstream.learned_repairs import LearnedFields

WATCH_S: Final = 1.0
# How often a worker reports that a cause continues: below `silent` in
# harness.frame.alerts.alert.
REPORT_OPEN_EVERY_S: Final = 60.0
# How often a worker reports that the router's own faults continue.
AGAIN_S: Final = 10.0
NO_KEY: Final = "no key of "
TARGET: Final = "target "
SHARED_KEYS: Final = "keys of "
SHOWN_KEY: Final = 60  # characters of a key in an alert
PAUSE: Final = "pause of "
REPAIRS: Final = "repairs of "
SILENT: Final = "silence of "
REVISION: Final = "revision"
WORKER_CAUSES: Final = (NO_KEY, REVISION)
KEY_ALERTS: Final = frozenset({AlertKind.OUR_KEY, AlertKind.QUOTA})
ALERT_KINDS: Final = {
    FailureClass.OUR_KEY: AlertKind.OUR_KEY,
    FailureClass.QUOTA: AlertKind.QUOTA,
    FailureClass.MODEL_UNKNOWN: AlertKind.MODEL_UNKNOWN,
}
# The meaning of a class of failure, for people.
BECAUSE: Final = {
    FailureClass.OUR_KEY: "the provider refuses our key",
    FailureClass.QUOTA: "our account has no quota left, or is suspended",
    FailureClass.MODEL_UNKNOWN: "the provider does not know the model",
    FailureClass.BLOCKED: "a system in front of it refuses the requests of several callers",
    FailureClass.REGION: "it does not serve this region",
    FailureClass.OVERLOADED: "it reports that it is overloaded",
    FailureClass.SERVER: "it answers with server errors",
    FailureClass.CONNECT: "no connection can be made",
    FailureClass.TIMEOUT: "it does not answer in time",
    FailureClass.MALFORMED: "its answers are malformed",
    FailureClass.ABORTED: "it breaks its answers off with an error",
    FailureClass.EMPTY: "its answers are empty",
}


class WorkerAlerts:
    """The open alerts of one worker, by the name of their cause.

    learned: returns the fields that each target refuses, as repairs learned them.
    """

    def __init__(
        self,
        holder: SnapshotHolder,
        health: TargetHealth,
        recorder: Recording,
        clock: Clock,
        events: EventLog,
        learned: LearnedFields,
    ) -> None:
        self._events = events
        self._learned = learned
        self._holder = holder
        self._health = health
        self._recorder = recorder
        self._clock = clock
        self._open: dict[str, Alert] = {}
        self._refused = ""
        self._faults_sent_at_s: dict[str, float] = {}
        self._unsent_faults: dict[str, Alert] = {}
        self.shares = CallerShares(self._note_shares)
        self._followers: list[Callable[[CompiledSnapshot], None]] = [
            health.note_candidates,
            self.shares.evaluate,
        ]

    def add_follower(self, follower: Callable[[CompiledSnapshot], None]) -> None:
        """Adds a function that gets the serving snapshot about once a second."""
        self._followers.append(follower)

    def note_breaker_move(self, target: str, after: Breaker) -> None:
        """Alerts an open circuit, and ends the alert once the circuit closes."""
        if after.state is BreakerState.HALF_OPEN:
            return
        if after.state is BreakerState.CLOSED:
            self._resolve(f"{TARGET}{target}")
        else:
            self._alert_open_circuit(target, after.because)

    def note_pause(self, target: str, wait_s: float) -> None:
        """Alerts a provider's request for a long pause.

        Args:
            wait_s: in seconds.
        """
        name, _ = self._name_target(target)
        until = self._clock.now() + timedelta(seconds=wait_s)
        self._raise(
            f"{PAUSE}{target}",
            AlertKind.BREAKER_OPEN,
            f"target {name}",
            f"{target}:pause",
            f"{name} gets no requests: its provider asked for a pause",
            f"The provider asked for no requests until {until:%F %H:%M} UTC.",
            f"To ask it at once: `swapproof switch throw target:{target} --for 10s --reason "
            "…`.",
            *self._describe_load(target),
            source=target,
        )

    def note_key_change(
        self,
        provider: str,
        key: str,
        refusal: UpstreamFailed | None,
    ) -> None:
        """Alerts a refused key.

        Args:
            refusal: None if the key works again.
        """
        name = f"key {provider} {key}"
        if refusal is None:
            self._resolve(name)
            return
        self._raise(
            name,
            ALERT_KINDS[refusal.failure],
            f"provider {provider}",
            f"{provider}:{key}",
            f"the router stopped using the key in {key}: {BECAUSE[refusal.failure]}",
            f"Another key of {provider} serves while one is left.",
            *_quote_provider(refusal.provider_words),
            source=f"{provider}/{key}",
        )

    def note_canary_abort(self, abort: LocalAbort) -> None:
        """Alerts a stopped canary, which makes the control plane roll it back."""
        alert = Alert(
            AlertKind.LOCAL_ABORT,
            f"route {abort.route}",
            f"{AlertKind.LOCAL_ABORT.value}:{abort.rollout}",
            f"the router stopped the canary of route {abort.route} by itself",
            guard_sentence(abort.count),
            self._clock.now(),
            abort.worker,
            details=to_plain(abort.count),
        )
        self.raise_alert(alert)

    def _note_shares(self, route: str, shares: Mapping[str, float]) -> None:
        name = f"{SHARED_KEYS}{route}"
        if not shares:
            self._resolve(name)
            return
        # Name a key that a client sent, rather than a conversation's opening.
        key = max(
            shares,
            key=lambda key: (not key.startswith(OPENING), shares[key]),
        )
        share = format_percent(shares[key], 0)
        share_text = f"of {route}'s requests"
        finding = f"carry one key ({key[:SHOWN_KEY]}), so it names an application"
        if key.startswith(OPENING):
            finding = "begin with one message and name no caller, so it is a template"
        self._raise(
            name,
            AlertKind.SHARED_KEY,
            f"route {route}",
            route,
            f"one key carries {share} of the requests of {route}",
            f"{share} {share_text} {finding} and no person: a canary that draws keys would "
            "move all of them at once.",
            "So Swapproof assigns each conversation separately.",
        )

    def _resolve_missing(self, prefix: str, subjects: Collection[str]) -> None:
        """Ends the alerts of subjects that no longer exist."""
        for name in [open_name for open_name in self._open if open_name.startswith(prefix)]:
            if name.removeprefix(prefix) not in subjects:
                self._resolve(name)

    def _look_at_repairs(self) -> None:
        learned = self._learned()
        self._resolve_missing(REPAIRS, learned)
        for target, fields in learned.items():
            name = f"{REPAIRS}{target}"
            words = ", ".join(field.words for field in fields)
            title = f"{target} refuses {words} as clients send it"
            if name not in self._open or self._open[name].title != title:
                self._raise(
                    name,
                    AlertKind.LEARNED_REPAIR,
                    f"target {target}",
                    target,
                    title,
                    "Its provider refused it. The router changes requests with the same fields "
                    "before it sends them; x-swapproof-degraded names the changes. From time "
                    "to time it sends one unchanged, and a good answer ends the change.",
                    source=target,
                )

    def _look_at_silence(self) -> None:
        silent = self._health.silent_targets()
        self._resolve_missing(SILENT, silent)
        for target in silent:
            if f"{SILENT}{target}" in self._open:
                continue
            name, _ = self._name_target(target)
            self._raise(
                f"{SILENT}{target}",
                AlertKind.TARGET_SILENT,
                f"target {name}",
                target,
                f"callers leave {name} without an answer",
                f"{name} sends nothing, and several callers gave up. The router continues to "
                "call it, because their route has no other target that can answer.",
                source=target,
            )

    def internal_error(
        self,
        cause: str,
        subject: str,
        words: str,
    ) -> None:
        """Reports a fault.

        Args:
            cause: the live rollout that it holds, or `subject` without one.
        """
        key = f"{AlertKind.INTERNAL_ERROR.value}:{cause}"
        alert = self._build_alert(
            AlertKind.INTERNAL_ERROR,
            subject,
            cause,
            f"the router failed in a request of {subject}",
            words,
        )
        now = self._clock.monotonic()
        if now - self._faults_sent_at_s.get(key, -AGAIN_S) < AGAIN_S:
            self._unsent_faults[key] = alert
            return
        self._faults_sent_at_s[key] = now
        self.raise_alert(alert)

    def _look_at_faults(self) -> None:
        """Reports later faults, because a person may have acknowledged only earlier faults."""
        now = self._clock.monotonic()
        for key in list(self._unsent_faults):
            if now - self._faults_sent_at_s[key] >= AGAIN_S:
                self._faults_sent_at_s[key] = now
                self.raise_alert(self._unsent_faults.pop(key))

    def evaluate(self) -> None:
        """Looks for causes that began or ended, and tells the followers of the serving
        snapshot.
        """
        serving = self._holder.current
        if serving is not None:
            for follower in self._followers:
                follower(serving)
        self._look_at_keys()
        self._look_at_repairs()
        self._look_at_silence()
        self._look_at_revision()
        paused = [name.removeprefix(PAUSE) for name in self._open if name.startswith(PAUSE)]
        self._resolve_missing(
            PAUSE,
            [target for target in paused if self._health.slowdowns.rest_s(target) > 0],
        )
        self._look_at_faults()

    def _look_at_keys(self) -> None:
        serving = self._holder.current
        served = serving.routes.values() if serving else ()
        lacking = {
            route.upstreams[target].provider.name
            for route in served
            for target in route.keyless
        }
        # A removed key is no longer refused. A provider without a key has an alert of its own.
        for id_ in {id_ for route in served for id_ in route.keyless}:
            name = f"{TARGET}{id_}"
            if name in self._open and self._open[name].kind in KEY_ALERTS:
                self._resolve(name)
        self._resolve_missing(NO_KEY, lacking)
        for provider in sorted(lacking):
            name = f"{NO_KEY}{provider}"
            if name not in self._open:
                self._raise(
                    name,
                    AlertKind.OUR_KEY,
                    f"provider {provider}",
                    f"{provider}:none",
                    f"{provider} gets no requests: it has no key",
                    f"Targets of {provider} are left out of every plan until it has one.",
                    source=provider,
                )

    def _look_at_revision(self) -> None:
        if refused_because := self._holder.disk_refused:
            self._holder.disk_refused = ""
            alert = self._build_alert(
                AlertKind.REVISION_REFUSED,
                "snapshot on disk",
                "disk",
                "the router refused the snapshot on its disk when it started",
                f"{refused_because}. The router writes it again. Keys that were revoked before "
                "a database was restored may open this router again: revoke them again.",
            )
            self.raise_alert(alert)
        refused = self._holder.refused
        if refused == self._refused:
            return
        self._refused = refused
        if not refused:
            self._resolve(REVISION)
            return
        kind = AlertKind.REVISION_REFUSED
        title = "a new revision was refused, the old one"
        if self._holder.undercut:
            kind = AlertKind.DATABASE_RESTORED
            title = "the database went back in its history, the newer table"
        title = f"{title} keeps serving"
        self._raise(REVISION, kind, "routing table", "", title, refused)

    def still(self) -> None:
        """Reports that the open alerts continue: the control plane ends an alert that falls
        silent.
        """
        now = self._clock.now()
        self._recorder.notify(
            *(alert.now(AlertEvent.STILL, now) for alert in self._open.values())
        )

    async def watch(self) -> None:
        """Evaluates every WATCH_S until cancelled."""
        turns = 0
        while True:
            await asyncio.sleep(WATCH_S)
            self.evaluate()
            turns += 1
            if turns >= REPORT_OPEN_EVERY_S / WATCH_S:
                turns = 0
                self.still()

    def _raise(
        self,
        name: str,
        kind: AlertKind,
        subject: str,
        key: str,
        title: str,
        *sentences: str,
        source: str = "",
    ) -> None:
        """Opens or replaces the alert of a cause.

        Args:
            name: the cause.
            key: identifies the alert at the control plane; several causes may share it.
        """
        alert = self._build_alert(kind, subject, key, title, " ".join(sentences), source)
        before = self._open.get(name)
        if before is not None and before.key != alert.key:
            self._resolve(name)
        self._open[name] = alert
        self.raise_alert(alert)

    def close(self, *, is_replaced: bool) -> None:
        """Hands the alerts over to the next worker. A shutdown ends no cause, so it ends no
        alert.

        Args:
            is_replaced: whether another worker serves already. It raises WORKER_CAUSES at once,
                so this worker ends its own; other alerts end by silence.
        """
        for prefix in WORKER_CAUSES if is_replaced else ():
            self._resolve_missing(prefix, ())
        self._recorder.notify(*self._unsent_faults.values())
        self._open.clear()

    def raise_alert(self, alert: Alert) -> None:
        self._recorder.notify(alert)
        self._events.put(
            "alert",
            kind=alert.kind.value,
            severity=alert.severity.name.lower(),
            subject=alert.subject,
            title=alert.title,
            text=alert.text,
            next=alert.next_step,
        )

    def _resolve(self, name: str) -> None:
        alert = self._open.pop(name, None)
        if alert is None:
            return
        self._recorder.notify(alert.now(AlertEvent.ENDED, self._clock.now()))
        self._events.put("alert_resolved", kind=alert.kind.value, subject=alert.subject)

    def _alert_open_circuit(self, target: str, because: FailureClass | None) -> None:
        """Alerts an open circuit: a fault of our account once for the provider, others by
        target.
        """
        name, provider = self._name_target(target)
        kind = AlertKind.BREAKER_OPEN
        reason = "it fails"
        is_account_fault = False
        if because is not None:
            kind = ALERT_KINDS.get(because, kind)
            reason = BECAUSE.get(because, reason)
            # One alert is enough, because all targets of a provider share its account.
            is_account_fault = FAILURE_RULES[because].reach.is_of_account
        subject = f"provider {provider}" if is_account_fault else f"target {name}"
        last_failure = self._health.failures.get(target)
        failure = (
            last_failure
            if last_failure is not None and last_failure.failure is because
            else None
        )
        self._raise(
            f"{TARGET}{target}",
            kind,
            subject,
            provider if is_account_fault else target,
            f"{name} gets no requests: {reason}",
            f"The circuit of {name} is open.",
            *self._describe_load(target),
            *_quote_provider(failure),
            source=target,
        )

    def _describe_load(self, target: str) -> Iterator[str]:
        """Yields a sentence for each route of the target, with the target that has its load."""
        serving = self._holder.current
        for route in serving.routes.values() if serving else ():
            if target not in route.upstreams:
                continue
            plans = (plan for by_arm in route.plans.values() for plan in by_arm.values())
            well = (
                other
                for plan in plans
                for other in plan.targets
                if other != target and self._health.state(other) is not BreakerState.OPEN
            )
            carrier = next(well, None)
            load = "no other target is left for its load"
            if carrier is not None:
                load = f"{route.upstreams[carrier].name} carries its load now"
            yield f"Route {route.route.name}: {load}."

    def _name_target(self, target: str) -> tuple[str, str]:
        serving = self._holder.current
        declared = serving.snapshot.table.targets.get(target) if serving else None
        return (declared.name, declared.provider) if declared else (target, target)

    def _build_alert(
        self,
        kind: AlertKind,
        subject: str,
        key: str,
        title: str,
        text: str,
        source: str = "",
    ) -> Alert:
        key = f"{kind.value}:{key}" if key else kind.value
        source = f"{self._recorder.worker}/{source}" if source else self._recorder.worker
        return Alert(kind, subject, key, title, text, self._clock.now(), source)


def _quote_provider(failure: ProviderWords | None) -> Iterator[str]:
    if failure is not None and failure.sentence:
        cause = f" ({failure.cause})" if failure.cause else ""
        yield f"Its provider said{cause}: {keep_sentence(failure.sentence)}"
