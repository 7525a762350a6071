"""Runs `swapproof serve drive`: another gateway splits a route's traffic as Swapproof decides.

Each tick gives the gateway the routing table's shares, and reports shares that Swapproof did
not set. A tick also counts the gateway's outcomes, in the same records as a router. An outcome
is evidence only if its request began while Swapproof's split was in force. The rules about such
times are pure, in `harness.canary.split`.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from harness.app.gateways.flagd_file import FlagdFile
from harness.app.gateways.litellm_admin import LiteLLMAdmin
from harness.app.installation import Installation, open_installation
from harness.app.router_process import build_recorder, load_holder
from harness.canary.split import (
    FLAGD_WORKER,
    LITELLM_WORKER,
    LONGEST_LOG_DELAY,
    DrivenTargets,
    Outcome,
    Split,
    SplitDriver,
    TrustedTime,
    allowed_split,
    confirm_time,
    describe_change,
    find_start,
    find_time,
    planned_split,
)
from harness.frame.alerts.alert import Alert, AlertEvent, AlertKind
from harness.frame.errors import StoreUnavailable, UpstreamError
from harness.frame.formatting import format_bps, format_quantity
from harness.frame.ports import Clock
from harness.frame.runtime import telemetry
from harness.frame.runtime.supervisor import CHECK_EVERY_S, interrupts
from harness.gate.online.outcome import (
    ANSWERED,
    ExposureOutcome,
    OutcomeKind,
    OutcomeReason,
)
from harness.providers.target import Target

if TYPE_CHECKING:
    from router.recording.recorder import Recorder
    from router.snapshot.compiled import CompiledRoute, CompiledSnapshot

log = structlog.get_logger("swapproof.drive")

# A tick reads the logs of requests that began within RECENT_PERIOD. Once per LATE_READ_EVERY,
# it reads back to LONGEST_LOG_DELAY before the last such read, because gateways log slow
# requests late.
RECENT_PERIOD: Final = timedelta(seconds=45)
LATE_READ_EVERY: Final = timedelta(minutes=3)
AFFINITY_PERIOD: Final = timedelta(hours=1)  # LiteLLM's default duration of session affinity
GATEWAY_SUBJECT: Final = "the gateway"
OUTCOMES_SUBJECT: Final = "the gateway's outcomes"
REPEAT_AFTER: Final = timedelta(minutes=1)
NO_AUDIENCE: Final = (
    "its canary has an audience, which a gateway that picks a model for each request cannot "
    "apply, so all callers keep the incumbent: send the requests to Swapproof's router, or "
    "abort the canary and propose with a policy without `canary.audience`"
)


class DrivenRoute(NamedTuple):
    """The drive's knowledge about a route. times: the times at which the gateway's split was
    certainly Swapproof's.
    """

    split: Split  # the split that Swapproof set; empty if the gateway refused it
    times: Sequence[TrustedTime]
    targets: Mapping[str, Target]  # by id: the route's targets, current and former


class SplitDrive:
    """Drives one gateway. settle_time: how long the gateway's processes may use the
    old split.
    """

    def __init__(
        self,
        driver: SplitDriver,
        recorder: "Recorder",
        clock: Clock,
        settle_time: timedelta,
    ) -> None:
        self._driver = driver
        self._recorder = recorder
        self._clock = clock
        self._settle_time = settle_time
        self._routes: dict[str, DrivenRoute] = {}
        self._open_alerts: dict[str, Alert] = {}
        # The start of each counted request, by the request's id, and of each caller's first
        # request.
        self._counted_requests: dict[str, datetime] = {}
        self._first_request_at: dict[str, datetime] = {}
        self._read_late_at = clock.now() - LATE_READ_EVERY

    def tick(self, serving: "CompiledSnapshot") -> None:
        """Sets and checks the splits of all routes, and counts new outcomes.

        Args:
            serving: the routing table.

        Does not raise if the gateway does not answer: problems become alerts, and the gateway's
        last split stays in force.
        """
        problems: dict[str, str] = {}
        try:
            self._driver.begin_look()
            for name, route in serving.routes.items():
                if text := self._update_route_safely(name, route):
                    problems[f"route {name}"] = text
        except UpstreamError as error:
            problems[GATEWAY_SUBJECT] = f"{error}. Its last split stays in force."
        else:
            self._count_outcomes(serving, problems)
        self._report_problems(problems)

    def _update_route_safely(self, name: str, route: "CompiledRoute") -> str:
        try:
            return self._update_route(name, route)
        except UpstreamError:
            raise
        except Exception as error:  # other routes must still be able to roll back
            log.exception("route_failed", route=name)
            return (
                f"an unexpected fault, {error!r}: its last split stays in force. Report the "
                "log of `swapproof serve drive`."
            )

    def _update_route(self, name: str, route: "CompiledRoute") -> str:
        """Sets a route's split. Returns a problem, or an empty text. Raises UpstreamError if
        the gateway does not answer.
        """
        driven = self._routes.get(name)
        targets = {**driven.targets, **route.targets} if driven else route.targets
        actual = self._driver.read_split(name, targets.values())
        if not actual and driven is None:
            return ""  # the gateway does not have this route
        now = self._clock.now()
        allowed = allowed_split(targets, route.route, route.switches, now)
        expected = driven.split if driven and driven.split else allowed
        names = {id_: target.name for id_, target in targets.items()}
        change = describe_change(expected, actual, names)
        times = driven.times if driven else ()
        if describe_change(allowed, actual, names):
            self._routes[name] = DrivenRoute({}, times, targets)
            try:
                self._driver.set_split(name, targets.values(), allowed)
            except UpstreamError as error:
                return str(error)
            shares = {names[target]: format_bps(bps) for target, bps in allowed.items()}
            log.info("split_set", route=name, shares=shares)
        has_audience = route.audience is not None and route.route.canary is not None
        is_planned = allowed == planned_split(route.route) and not has_audience
        trial = route.experiment if is_planned else None
        trusted_now = TrustedTime(route.route.incumbent, trial, now, now)
        is_steady = driven is not None and driven.split == allowed and not change
        is_same_split = (
            bool(times) and (times[-1].incumbent, times[-1].trial) == trusted_now[:2]
        )
        settle_time = None if is_steady and is_same_split else self._settle_time
        self._routes[name] = DrivenRoute(
            allowed, confirm_time(times, trusted_now, settle_time), targets
        )
        if has_audience:
            return NO_AUDIENCE
        return change and (
            f"the gateway's split was not the one that Swapproof allows: {change}. Swapproof "
            "corrected it; earlier requests do not count as evidence."
        )

    def _count_outcomes(self, serving: "CompiledSnapshot", problems: dict[str, str]) -> None:
        """Counts the outcomes that no earlier tick has counted.

        Ignores requests from times at which the split was not Swapproof's. Adds the problems to
        `problems`.
        """
        now = self._clock.now()
        is_late = now - self._read_late_at >= LATE_READ_EVERY
        since = now - (LONGEST_LOG_DELAY + LATE_READ_EVERY if is_late else RECENT_PERIOD)
        targets_by_route: DrivenTargets = {
            name: driven.targets.values() for name, driven in self._routes.items()
        }
        unnamed = Counter[str]()
        try:
            for outcome in (
                self._driver.read_outcomes(since, targets_by_route) if targets_by_route else ()
            ):
                times = self._routes[outcome.route].times
                trusted = find_time(times, outcome.started_at)
                first_at = self._first_request_at.setdefault(outcome.caller, outcome.started_at)
                if trusted is None or outcome.id in self._counted_requests:
                    continue
                self._counted_requests[outcome.id] = outcome.started_at
                unnamed[outcome.route] += outcome.target is None and trusted.trial is not None
                is_new = first_at >= find_start(times, trusted)
                self._record_outcome(outcome, trusted, serving.revision, is_new=is_new)
            self._read_late_at = now if is_late else self._read_late_at
        except UpstreamError as error:
            problems[OUTCOMES_SUBJECT] = f"{error}. Unread requests do not count as evidence."
        self._counted_requests = {
            id_: at
            for id_, at in self._counted_requests.items()
            if at > now - 2 * LONGEST_LOG_DELAY
        }
        self._first_request_at = {
            caller: at
            for caller, at in self._first_request_at.items()
            if at > now - AFFINITY_PERIOD
        }
        for name, number in (+unnamed).items():
            problems[f"route {name}"] = (
                f"{format_quantity(number, 'request')} got an answer after a retry or a "
                "fallback, and the log does not name the model that failed first. Swapproof "
                "counts them as failures of the candidate. Install the callback of "
                "`how-to/beside-litellm`."
            )

    def _record_outcome(
        self,
        outcome: Outcome,
        trusted: TrustedTime,
        revision: int,
        *,
        is_new: bool,
    ) -> None:
        """Records one outcome as a router would.

        Args:
            is_new: whether the caller's first request came after the split began, so that
                chance chose the caller's arm.
        """
        from harness.gate.online.reading.scored_exposures import (  # noqa: PLC0415 - slow
            GuardrailSample,
            SampleValues,
        )
        from router.recording.sums import CompletedRequest  # noqa: PLC0415 - slow

        target = outcome.target or trusted.candidate
        arm = trusted.find_arm(target)
        trial = trusted.trial
        ticket = None
        if arm is None:
            return
        # Earlier callers do not count: session affinity, not chance, chose their arm.
        if trial is not None and is_new:
            ticket = self._recorder.admit_to(
                trial.rollout,
                trial.unit_rule,
                outcome.caller,
                canary=trial.is_candidate(arm),
                weight_bps=trial.candidate_bps,
            )
        completed = CompletedRequest(
            outcome.route,
            arm.value,
            target,
            revision,
            failed=outcome.failed and not outcome.answered,
            charged=outcome.failed,
            charge=outcome.why,
            latency_ms=outcome.latency_s * 1000.0,
            input_tokens=outcome.input_tokens,
            output_tokens=outcome.output_tokens,
            priced=False,
        )
        latency_s = None if outcome.failed else outcome.latency_s
        sample = GuardrailSample(SampleValues(latency_s))
        self._recorder.finish(ticket, completed, sample, _convert_outcome(outcome))

    def _report_problems(self, problems: Mapping[str, str]) -> None:
        """Raises alerts for new problems, repeats the alerts of lasting problems every
        `REPEAT_AFTER`, and ends the others.
        """
        now = self._clock.now()
        # If the gateway does not answer, the state of its routes is unknown, so no alert ends.
        ended_subjects = (
            () if GATEWAY_SUBJECT in problems else self._open_alerts.keys() - problems.keys()
        )
        for subject in ended_subjects:
            self._recorder.notify(self._open_alerts.pop(subject).now(AlertEvent.ENDED, now))
        for subject, text in problems.items():
            key = f"{AlertKind.SPLIT.value}:{subject}"
            title = f"the split of {subject} is unsure"
            if subject == OUTCOMES_SUBJECT:
                title = f"{subject} are incomplete"
            source = self._recorder.worker
            open_alert = self._open_alerts.get(subject)
            alert = Alert(AlertKind.SPLIT, subject, key, title, text, now, source)
            if open_alert is not None and open_alert.text == text:
                if now - open_alert.at < REPEAT_AFTER:
                    continue
                alert = alert.now(AlertEvent.STILL, now)
            else:
                log.warning("split", subject=subject, text=text)
            self._open_alerts[subject] = alert
            self._recorder.notify(alert)


def _convert_outcome(outcome: Outcome) -> ExposureOutcome:
    """Returns the outcome of an exposure. A gateway's log shows only answers and failures."""
    if outcome.failed:
        return ExposureOutcome(OutcomeKind.FAILED, OutcomeReason.PROVIDER, outcome.why)
    return ANSWERED


def drive_litellm(
    config_path: Path | None,
    url: str,
    key: str,
    *,
    every_s: float,
    settle_s: float,
) -> None:
    """Drives LiteLLM until SIGTERM or SIGINT. Raises ConfigError, SnapshotInvalid."""
    installation = open_installation(config_path, signs_as=None)
    driver = LiteLLMAdmin(url, key, installation.settings.router.allow_addresses)
    _run_drive(installation, driver, LITELLM_WORKER, every_s, settle_s)


def drive_flagd(
    config_path: Path | None,
    flags: Path,
    spans: Path,
    *,
    every_s: float,
    settle_s: float,
) -> None:
    """Writes flagd's flags until SIGTERM or SIGINT. Raises ConfigError, SnapshotInvalid."""
    installation = open_installation(config_path, signs_as=None)
    _run_drive(
        installation,
        FlagdFile(flags, spans),
        FLAGD_WORKER,
        every_s,
        settle_s,
    )


def _run_drive(
    installation: Installation,
    driver: SplitDriver,
    worker: str,
    every_s: float,
    settle_s: float,
) -> None:
    from router.upstream.transports import Transports  # noqa: PLC0415 - slow to import

    telemetry.configure()
    router = installation.settings.router
    holder = load_holder(installation, Transports(router))
    recorder = build_recorder(
        installation,
        lambda: holder.current.rollouts if holder.current else frozenset(),
        name=worker,
    )
    drive = SplitDrive(driver, recorder, installation.clock, timedelta(seconds=settle_s))
    recorder.start()
    try:
        with interrupts() as interruption:
            while not interruption.ended:
                next_at = time.monotonic() + every_s
                try:
                    holder.refresh()
                except StoreUnavailable as error:
                    log.warning("database_away", text=str(error))
                if holder.current is not None:
                    try:
                        drive.tick(holder.current)
                    except Exception:
                        # Continues, because a driver that has ended cannot roll back.
                        log.exception("tick_failed")
                while not interruption.ended and time.monotonic() < next_at:
                    time.sleep(CHECK_EVERY_S)
    finally:
        recorder.stop()
        installation.close()
