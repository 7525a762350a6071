"""Runs one eval run as a worker process. A kill at any point loses no stored sample, and the
next worker requests the missing samples again.

The worker holds the run by a lease (`LEASE_S`) and renews it. It decides nothing about the
proposal: it stores samples, and the control plane reads them.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta

from harness.app.store.store import Store
from harness.evals.month_spending import SpendingPurpose
from harness.evals.ports import EvalJob, EvalRunner
from harness.evals.spending import spending_purpose
from harness.evals.spending_meter import SpendingMeter, StoredSpending
from harness.frame.errors import (
    JudgeUnfit,
    LeaseLost,
    NotFound,
    ProviderAway,
    SpendingPaused,
    StoreUnavailable,
    SwapgateError,
)
from harness.frame.failures import DEFAULT_PATIENCE_S, next_try
from harness.frame.formatting import format_span, format_usd
from harness.frame.people.access import SYSTEM
from harness.frame.ports import Clock
from harness.frame.records.transaction import Transaction
from harness.frame.runtime.supervisor import interrupts
from harness.frame.signing.audit_log import AuditLog
from harness.gate.pins import ServedModel, Sighting
from harness.gate.run import (
    CALIBRATED,
    EVER,
    LEASE_S,
    EvalRun,
    RunState,
    Sample,
)
from harness.proposals.eval_queue import list_needed_runs
from harness.providers.records import Providers, Sightings, Targets
from harness.providers.target import Provider
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns, Suites

BEAT_S = 2.0


@dataclass(frozen=True, slots=True)
class WorkerEnv:
    """The environment variables in which the parent passes a provider's secrets."""

    key: str  # the variable of the run's provider key
    headers: str  # the variable of the provider's headers, a JSON object


TARGET = WorkerEnv("SWAPGATE_RUN_TARGET_KEY", "SWAPGATE_RUN_TARGET_HEADERS")
JUDGE = WorkerEnv("SWAPGATE_RUN_JUDGE_KEY", "SWAPGATE_RUN_JUDGE_HEADERS")
STORE_ATTEMPTS = 30
STORE_PAUSE_S = 1.0
NOTE_EVERY = timedelta(seconds=5)


@dataclass
class EvalWorker:
    """Works on one run, once. An instance must not be used for a second run."""

    store: Store
    clock: Clock
    runner: EvalRunner
    owner: str  # this worker's name on the lease
    parent: int  # the parent's pid; the worker ends with the parent
    # Environment variables. The parent sets providers' keys in TARGET and JUDGE; if one is
    # missing, the worker reads the provider's own variable.
    secrets: Mapping[str, str]
    connections: int = 8
    # maps a suite to its judge's provider
    judges: Mapping[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _noted: dict[tuple[str, ServedModel], datetime] = field(default_factory=dict)
    _kept: set[tuple[str, int]] = field(default_factory=set)
    _meters: list[SpendingMeter] = field(default_factory=list)

    def work(self, run: str) -> RunState | None:
        """Returns the run's final state; None if another worker owns the run."""
        job = self._take(run)
        if job is None:
            return None
        with interrupts([signal.SIGTERM]) as over:
            return self._work_on(
                job,
                lambda: over.ended or self._stop.is_set() or bool(self._refusal),
            )

    def _work_on(self, job: EvalJob, stopping: Callable[[], bool]) -> RunState | None:
        """Runs the job and stores the run's state. An unfit judge fails the run; a reached cap
        and an absent provider only stop it, so that it can go on later.
        """
        run = job.run.id
        beat = threading.Thread(target=self._beat, args=(run,), daemon=True)
        beat.start()
        meter = _ProgressMeter(job, *self._progress(run))
        remark = ""
        away = None
        try:
            state = RunState.OVER_BUDGET
            if not meter.over:
                state = self.runner.run(job, self._keeper(meter), stopping)
                remark = self.runner.remark
        except JudgeUnfit as error:
            # Fails the run, because the next worker would find the same fault.
            state = RunState.FAILED
            remark = str(error)
        except SpendingPaused as error:
            state = RunState.STOPPED
            remark = str(error)
        except ProviderAway as error:
            state = RunState.STOPPED
            away = error
        finally:
            self._stop.set()
            beat.join()
            self._write_spending()
        if away is not None and not meter.over and not self._refusal:
            return self._wait(run, away)
        return self._leave(job, state, meter.message or self._refusal or remark)

    @property
    def _refusal(self) -> str:
        """Returns why the monthly cap stops this run; empty if the run may continue."""
        return next((meter.refusal for meter in self._meters if meter.refusal), "")

    def _write_spending(self) -> None:
        with suppress(StoreUnavailable):
            for meter in self._meters:
                meter.refresh()

    def _take(self, run: str) -> EvalJob | None:
        """Takes the run's lease and loads its job. None if another worker has the lease."""
        with self.store.write() as tx:
            if not self._lease(EvalRuns(tx).lease, run):
                return None
            before = EvalRuns(tx).get(run)
            EvalRuns(tx).set_state(
                run,
                RunState.RUNNING,
                before.message if before.waits_since else "",
            )
            eval_run = EvalRuns(tx).get(run)
            target = Targets(tx).all()[eval_run.target]
            provider = Providers(tx).all().get(target.provider)
            if provider is None:
                raise NotFound(f"run {run}: provider {target.provider!r} no longer exists")
            judge = Providers(tx).all().get(self.judges.get(eval_run.suite, ""))
            purpose = spending_purpose(tx, run)
            own = SpendingMeter(StoredSpending(self.store), self.clock, purpose)
            judging = SpendingMeter(
                StoredSpending(self.store),
                self.clock,
                SpendingPurpose.JUDGES,
            )
            self._meters = [own, judging]
            return EvalJob(
                run=eval_run,
                target=target,
                provider=self._opened(TARGET, provider),
                api_key=self._key(TARGET, provider),
                stored=EvalRuns(tx).done(run),
                max_connections=self.connections,
                judge_provider=self._opened(JUDGE, judge) if judge else None,
                judge=_judge(tx, eval_run),
                judge_api_key=self._key(JUDGE, judge) if judge else None,
                spending=own,
                judge_spending=judging,
            )

    def _key(self, passed: WorkerEnv, provider: Provider) -> str | None:
        return self.secrets.get(passed.key) or self.secrets.get(provider.api_key_env or "")

    def _opened(self, passed: WorkerEnv, provider: Provider) -> Provider:
        """Returns the provider with its headers in clear, if the parent set any."""
        given = self.secrets.get(passed.headers)
        if not given:
            return provider
        return replace(provider, extra_headers=json.loads(given), sealed_headers={})

    def _lease(self, lease: Callable[..., bool], run: str) -> bool:
        now = self.clock.now()
        return lease(
            run,
            self.owner,
            now=now,
            until=now + timedelta(seconds=LEASE_S),
        )

    def _beat(self, run: str) -> None:
        """Renews the lease until the run ends. Stops the run if the parent has ended, or if the
        run is cancelled or has another owner.
        """
        while not self._stop.wait(BEAT_S):
            if os.getppid() != self.parent or not self._still_wanted(run):
                self._stop.set()
            self._write_spending()  # after a failure, the next call writes it

    def _still_wanted(self, run: str) -> bool:
        try:
            with self.store.write() as tx:
                ours = EvalRuns(tx).get(run)
                mine = ours.lease_owner == self.owner and ours.state is RunState.RUNNING
                return mine and self._lease(EvalRuns(tx).lease, run)
        except SwapgateError as error:
            # A short outage of the database does not end the run: the worker holds its samples.
            return error.retryable

    def _progress(self, run: str) -> tuple[int, float]:
        with self.store.read() as tx:
            _, cost, sent, received = EvalRuns(tx).progress(run)
        return sent + received, cost

    def _keeper(self, meter: "_ProgressMeter") -> Callable[[Sample], bool]:
        """Builds the callback that stores each sample. It returns False if the run must
        stop.
        """

        def keep(sample: Sample) -> bool:
            try:
                is_new = self._stored(meter.job, sample)
            except LeaseLost:
                # The run has ended, or another worker has its lease.
                self._stop.set()
                return False
            if is_new:
                self._kept.add((sample.item, sample.epoch))
                meter.add(sample)
            return not meter.over

        return keep

    def _stored(self, job: EvalJob, sample: Sample) -> bool:
        """Returns whether the sample is new. Waits while the database is unavailable, because
        an answer costs money.
        """
        sightings = self._sightings(job, sample)
        for _ in range(STORE_ATTEMPTS):
            with suppress(StoreUnavailable), self.store.write() as tx:
                return self._store(tx, job.run, sample, sightings)
            time.sleep(STORE_PAUSE_S)
        with self.store.write() as tx:
            return self._store(tx, job.run, sample, sightings)

    def _store(
        self,
        tx: Transaction,
        run: EvalRun,
        sample: Sample,
        sightings: Sequence[Sighting],
    ) -> bool:
        if run.waits_since is not None and not self._kept:
            EvalRuns(tx).end_wait(run.id)
        Sightings(tx).note(sightings)
        return EvalRuns(tx).store_sample(sample, owner=self.owner)

    def _sightings(self, job: EvalJob, sample: Sample) -> Sequence[Sighting]:
        """Lists the served models to note, each at most once per `NOTE_EVERY`."""
        now = self.clock.now()
        found = []
        for target, served in (
            (job.target.id, sample.served),
            (job.judge, sample.judge),
        ):
            noted = self._noted.get((target, served))
            if not (target and served.model) or (noted and now - noted < NOTE_EVERY):
                continue
            self._noted[target, served] = now
            found.append(Sighting(target, served, now, now))
        return found

    def _leave(
        self,
        job: EvalJob,
        state: RunState,
        message: str,
    ) -> RunState | None:
        """Gives the lease back with the run's final state. Returns None if another worker has
        the run.

        Fails a run whose stored samples have disappeared, because a deletion could change its
        score.
        """
        run = job.run.id
        with self.store.write() as tx:
            eval_run = EvalRuns(tx).get(run)
            stored = EvalRuns(tx).done(run)
            gone = (job.stored | self._kept) - stored
            if gone:
                state = RunState.FAILED
                message = f"{len(gone)} stored samples are gone"
            if eval_run.lease_owner == self.owner:
                self._note_calibration(tx, job.run)
            refused = state is RunState.FAILED and bool(message)
            asked = eval_run.wanted * eval_run.epochs
            complete = not refused and len(stored) >= asked
            after = _after(state, complete=complete)
            ours = EvalRuns(tx).leave(run, self.owner, after, message)
            return after if ours else None

    def _wait(self, id_: str, away: ProviderAway) -> RunState | None:
        """Pauses the run until its next attempt. Each answer of the provider restarts the wait.

        For a proposal's run, the proposal driver limits the wait, by the policy. Any other run
        fails here after `DEFAULT_PATIENCE_S`.
        """
        now = self.clock.now()
        first_failed = now - timedelta(seconds=away.silent_s)
        with self.store.write() as tx:
            run = EvalRuns(tx).get(id_)
            since = run.waits_since
            patience_since = run.patience_since
            if since is None or patience_since is None:
                since = patience_since = first_failed
            waited_s = (now - patience_since).total_seconds()
            if waited_s >= DEFAULT_PATIENCE_S and id_ not in list_needed_runs(
                Proposals(tx).open()
            ):
                gave_up = f"gave up after {format_span(waited_s)}: {away}"
                ours = EvalRuns(tx).leave(id_, self.owner, RunState.FAILED, gave_up)
                return RunState.FAILED if ours else None
            waits = replace(
                run,
                waits_since=since,
                patience_since=patience_since,
                retry_at=next_try(patience_since, now),
                message=str(away),
            )
            return RunState.QUEUED if EvalRuns(tx).wait(waits, self.owner) else None

    def _note_calibration(self, tx: Transaction, run: EvalRun) -> None:
        """Writes the judge's calibration to the audit log, if it differs from the last one
        there.
        """
        found = self.runner.calibration
        if found is None:
            return
        subject = Suites(tx).get(run.suite_digest).judge_subject
        details = asdict(found)
        noted = AuditLog(tx).for_subject(subject, since=EVER, limit=1)
        if not noted or noted[0].details != details:
            AuditLog(tx).append(SYSTEM, CALIBRATED, subject, details)


def _judge(tx: Transaction, run: EvalRun) -> str:
    """Returns the judge's target; empty if the suite has no judge or is not stored."""
    with suppress(NotFound):
        return Suites(tx).get(run.suite_digest).judge
    return ""


def _after(state: RunState, *, complete: bool) -> RunState:
    """Returns DONE only if all requested samples are stored. A stopped run waits."""
    if complete:
        return RunState.DONE
    return state if state in (RunState.OVER_BUDGET, RunState.FAILED) else RunState.QUEUED


@dataclass
class _ProgressMeter:
    """Counts a run's tokens and cost against its budget, over all its workers."""

    job: EvalJob
    tokens: int
    cost_usd: float

    def add(self, sample: Sample) -> None:
        self.tokens += sample.input_tokens + sample.output_tokens
        self.cost_usd += sample.cost_usd or 0.0

    @property
    def over(self) -> bool:
        return bool(self.message)

    @property
    def message(self) -> str:
        """Returns why the budget is used up; empty if the run may continue.

        A budget in USD stops a model without a price at once, because its cost cannot be
        limited.
        """
        budget = self.job.run.budget
        model = self.job.target.model
        if budget.max_tokens is not None and self.tokens >= budget.max_tokens:
            return f"the run has used {self.tokens} of {budget.max_tokens} tokens"
        if budget.max_cost_usd is None:
            return ""
        if model not in self.job.provider.prices:
            return (
                f"the price of {model} is unknown, so Swapgate cannot limit its cost to "
                f"{format_usd(budget.max_cost_usd)}: give provider {self.job.provider.name} "
                "a price"
            )
        if self.cost_usd >= budget.max_cost_usd:
            spent = format_usd(self.cost_usd)
            most = format_usd(budget.max_cost_usd)
            return f"the run has spent {spent} of {most}"
        return ""
