"""Runs one eval run as a worker process. A worker that is killed loses no stored sample, and
the next worker requests the missing samples again.

The worker holds the run by a lease (`LEASE_S`) and renews it. It does not decide about the
proposal: it stores samples, and the control plane reads them.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta

from harness.app.store.store import Store
from harness.evals.month_spending import SpendingPurpose
from harness.evals.ports import EvalJob, EvalRunner
from harness.evals.settings import whole_suite
from harness.evals.spending import spending_purpose
from harness.evals.spending_meter import SpendingMeter, StoredSpending
from harness.frame.errors import (
    JudgeUnfit,
    LeaseLost,
    NotFound,
    ProviderAway,
    RecordStale,
    SpendingPaused,
    StoreUnavailable,
    SwapproofError,
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
from harness.providers.target import Provider, Target
from harness.providers.target_price import describe_missing
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns, Suites

RENEW_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class WorkerEnv:
    """The environment variables in which the parent passes a provider's secrets."""

    key: str  # the variable of the run's provider key
    headers: str  # the variable of the provider's headers, a JSON object


TARGET = WorkerEnv("SWAPPROOF_RUN_TARGET_KEY", "SWAPPROOF_RUN_TARGET_HEADERS")
JUDGE = WorkerEnv("SWAPPROOF_RUN_JUDGE_KEY", "SWAPPROOF_RUN_JUDGE_HEADERS")
INCUMBENT = WorkerEnv("SWAPPROOF_RUN_INCUMBENT_KEY", "SWAPPROOF_RUN_INCUMBENT_HEADERS")
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
    # Maps a suite to its judge's provider.
    judges: Mapping[str, str] = field(default_factory=dict)
    # Maps a suite of traffic to the name of the target whose logged answers it has.
    answers_of: Mapping[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _noted_at: dict[tuple[str, ServedModel], datetime] = field(default_factory=dict)
    _stored_here: set[tuple[str, int]] = field(default_factory=set)
    _meters: list[SpendingMeter] = field(default_factory=list)

    def work(self, run: str) -> RunState | None:
        """Returns the run's final state; None if another worker owns the run."""
        job = self._take_job(run)
        if job is None:
            return None
        with interrupts([signal.SIGTERM]) as interruption:
            return self._work_on(
                job,
                lambda: interruption.ended or self._stop.is_set() or bool(self._refusal),
            )

    def _work_on(self, job: EvalJob, stopping: Callable[[], bool]) -> RunState | None:
        """Runs the job and stores the run's state. An unfit judge fails the run. A reached cap
        and an absent provider only stop it, so that it can continue later.
        """
        run = job.run.id
        renewal = threading.Thread(target=self._renew_until_end, args=(run,), daemon=True)
        renewal.start()
        progress = (0, 0.0) if job.gives_answers else self._load_progress(run)
        meter = _ProgressMeter(job, *progress)
        remark = ""
        absence = None
        try:
            state = RunState.OVER_BUDGET
            if not meter.over:
                state = self.runner.run(job, self._build_keeper(meter), stopping)
                remark = self.runner.remark
        except (JudgeUnfit, RecordStale) as error:
            # Fails the run, because the next worker would meet the same fault.
            state = RunState.FAILED
            remark = str(error)
        except SpendingPaused as error:
            state = RunState.STOPPED
            remark = str(error)
        except ProviderAway as error:
            state = RunState.STOPPED
            absence = error
        finally:
            self._stop.set()
            renewal.join()
            self._write_spending()
        if absence is not None and not meter.over and not self._refusal:
            return self._pause_run(run, absence)
        return self._release_run(job, state, meter.message or self._refusal or remark)

    @property
    def _refusal(self) -> str:
        """Returns why the monthly cap stops this run; empty if the run may continue."""
        return next((meter.refusal for meter in self._meters if meter.refusal), "")

    def _write_spending(self) -> None:
        with suppress(StoreUnavailable):
            for meter in self._meters:
                meter.refresh()

    def _take_job(self, run: str) -> EvalJob | None:
        """Takes the run's lease and loads its job. None if another worker has the lease."""
        with self.store.write() as tx:
            if not self._renew_lease(EvalRuns(tx).lease, run):
                return None
            former = EvalRuns(tx).get(run)
            EvalRuns(tx).set_state(
                run,
                RunState.RUNNING,
                former.message if former.waits_since else "",
            )
            eval_run = EvalRuns(tx).get(run)
            targets = Targets(tx).all()
            target = targets[eval_run.target]
            provider = Providers(tx).all().get(target.provider)
            if provider is None:
                raise NotFound(f"run {run}: provider {target.provider!r} no longer exists")
            suite = whole_suite(eval_run.suite)
            judge = Providers(tx).all().get(self.judges.get(suite, ""))
            incumbent = find_named(targets.values(), self.answers_of.get(suite, ""))
            asked = Providers(tx).all().get(incumbent.provider) if incumbent else None
            purpose = spending_purpose(tx, run)
            run_meter = SpendingMeter(StoredSpending(self.store), self.clock, purpose)
            judge_meter = SpendingMeter(
                StoredSpending(self.store),
                self.clock,
                SpendingPurpose.JUDGES,
            )
            self._meters = [run_meter, judge_meter]
            return EvalJob(
                run=eval_run,
                target=target,
                provider=self._restore_headers(TARGET, provider),
                api_key=self._find_provider_key(TARGET, provider),
                stored=EvalRuns(tx).done(run),
                max_connections=self.connections,
                judge_provider=self._restore_headers(JUDGE, judge) if judge else None,
                judge=_load_judge(tx, eval_run),
                judge_api_key=self._find_provider_key(JUDGE, judge) if judge else None,
                spending=run_meter,
                judge_spending=judge_meter,
                incumbent=incumbent,
                incumbent_provider=self._restore_headers(INCUMBENT, asked) if asked else None,
                incumbent_api_key=self._find_provider_key(INCUMBENT, asked) if asked else None,
            )

    def _find_provider_key(self, passed: WorkerEnv, provider: Provider) -> str | None:
        return self.secrets.get(passed.key) or self.secrets.get(provider.api_key_env or "")

    def _restore_headers(self, passed: WorkerEnv, provider: Provider) -> Provider:
        """Returns the provider with its headers in clear, if the parent set any."""
        headers = self.secrets.get(passed.headers)
        if not headers:
            return provider
        return replace(provider, extra_headers=json.loads(headers), sealed_headers={})

    def _renew_lease(self, lease: Callable[..., bool], run: str) -> bool:
        now = self.clock.now()
        return lease(
            run,
            self.owner,
            now=now,
            until=now + timedelta(seconds=LEASE_S),
        )

    def _renew_until_end(self, run: str) -> None:
        """Renews the lease until the run ends. Stops the run if the parent has ended, or if the
        run is cancelled or has another owner.
        """
        while not self._stop.wait(RENEW_EVERY_S):
            if os.getppid() != self.parent or not self._may_continue(run):
                self._stop.set()
            self._write_spending()  # after a failure, the next call writes it

    def _may_continue(self, run: str) -> bool:
        try:
            with self.store.write() as tx:
                current = EvalRuns(tx).get(run)
                is_own = current.lease_owner == self.owner and current.state is RunState.RUNNING
                return is_own and self._renew_lease(EvalRuns(tx).lease, run)
        except SwapproofError as error:
            # A short outage of the database must not end the run, because the worker still has
            # its samples.
            return error.retryable

    def _load_progress(self, run: str) -> tuple[int, float]:
        with self.store.read() as tx:
            _, cost, sent_tokens, received_tokens = EvalRuns(tx).progress(run)
        return sent_tokens + received_tokens, cost

    def _build_keeper(self, meter: "_ProgressMeter") -> Callable[[Sample], bool]:
        """Builds the callback that stores each sample. It returns False if the run must
        stop.
        """

        def keep(sample: Sample) -> bool:
            try:
                is_new = self._store_with_retries(meter.job, sample)
            except LeaseLost:
                # The run has ended, or another worker has its lease.
                self._stop.set()
                return False
            if is_new:
                self._stored_here.add((sample.item, sample.epoch))
                meter.add(sample)
            return not meter.over

        return keep

    def _store_with_retries(self, job: EvalJob, sample: Sample) -> bool:
        """Returns whether the sample is new. Waits while the database is unavailable, because
        an answer costs money.
        """
        sightings = self._list_sightings(job, sample)
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
        if run.waits_since is not None and not self._stored_here:
            EvalRuns(tx).end_wait(run.id)
        Sightings(tx).note(sightings)
        return EvalRuns(tx).store_sample(sample, owner=self.owner)

    def _list_sightings(self, job: EvalJob, sample: Sample) -> Sequence[Sighting]:
        """Lists the served models to record, each at most once per `NOTE_EVERY`."""
        now = self.clock.now()
        sightings = []
        for target, served in (
            (job.target.id, sample.served),
            (job.judge, sample.judge),
        ):
            noted_at = self._noted_at.get((target, served))
            if not (target and served.model) or (noted_at and now - noted_at < NOTE_EVERY):
                continue
            self._noted_at[target, served] = now
            sightings.append(Sighting(target, served, now, now))
        return sightings

    def _release_run(
        self,
        job: EvalJob,
        state: RunState,
        message: str,
    ) -> RunState | None:
        """Releases the lease, and stores the run's state, which it returns; None if another
        worker has the run.

        Fails a run whose stored samples have disappeared, because somebody could change its
        score by deletions.
        """
        run = job.run.id
        with self.store.write() as tx:
            eval_run = EvalRuns(tx).get(run)
            stored = EvalRuns(tx).done(run)
            lost = (job.stored | self._stored_here) - stored
            if lost:
                state = RunState.FAILED
                message = f"{len(lost)} stored samples are gone"
            if eval_run.lease_owner == self.owner:
                self._note_calibration(tx, job.run)
            is_failed = state is RunState.FAILED and bool(message)
            requested = eval_run.wanted * eval_run.epochs
            is_complete = not is_failed and len(stored) >= requested
            final_state = _choose_state(state, complete=is_complete)
            released = EvalRuns(tx).leave(run, self.owner, final_state, message)
            return final_state if released else None

    def _pause_run(self, id_: str, absence: ProviderAway) -> RunState | None:
        """Pauses the run until its next attempt. Each answer of the provider restarts the wait.

        The proposal driver limits the wait of a proposal's run, by the policy. Any other run
        fails here after `DEFAULT_PATIENCE_S`.
        """
        now = self.clock.now()
        first_failed = now - timedelta(seconds=absence.silent_s)
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
                message = f"gave up after {format_span(waited_s)}: {absence}"
                released = EvalRuns(tx).leave(id_, self.owner, RunState.FAILED, message)
                return RunState.FAILED if released else None
            waiting_run = replace(
                run,
                waits_since=since,
                patience_since=patience_since,
                retry_at=next_try(patience_since, now),
                message=str(absence),
            )
            return RunState.QUEUED if EvalRuns(tx).wait(waiting_run, self.owner) else None

    def _note_calibration(self, tx: Transaction, run: EvalRun) -> None:
        """Writes the judge's calibration to the audit log, if it differs from the log's last
        calibration.
        """
        calibration = self.runner.calibration
        if calibration is None:
            return
        subject = Suites(tx).get(run.suite_digest).judge_subject
        details = asdict(calibration)
        recorded = AuditLog(tx).for_subject(subject, since=EVER, limit=1)
        if not recorded or recorded[0].details != details:
            AuditLog(tx).append(SYSTEM, CALIBRATED, subject, details)


def find_named(targets: Iterable[Target], name: str) -> Target | None:
    """Finds a target by its name, such as `openai/gpt-6-sol`; None without one."""
    return next((target for target in targets if target.name == name), None)


def _load_judge(tx: Transaction, run: EvalRun) -> str:
    """Returns the judge's target; empty if the suite has no judge or is not stored."""
    with suppress(NotFound):
        return Suites(tx).get(run.suite_digest).judge
    return ""


def _choose_state(state: RunState, *, complete: bool) -> RunState:
    """Returns the run's next state: DONE only if all requested samples are stored. A stopped
    run is queued again.
    """
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
        if self.job.gives_answers:
            return
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
        target = self.job.target
        if budget.max_tokens is not None and self.tokens >= budget.max_tokens:
            return f"the run has used {self.tokens} of {budget.max_tokens} tokens"
        if budget.max_cost_usd is None:
            return ""
        if target.model not in self.job.provider.prices:
            limit = format_usd(budget.max_cost_usd)
            return describe_missing(
                target.name, effect=f", so Swapproof cannot limit its cost to {limit}"
            )
        if self.cost_usd >= budget.max_cost_usd:
            spent_text = format_usd(self.cost_usd)
            budget_text = format_usd(budget.max_cost_usd)
            return f"the run has spent {spent_text} of {budget_text}"
        return ""
