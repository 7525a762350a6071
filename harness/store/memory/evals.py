"""Suites, eval runs and their samples."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from harness.domain.errors import InputError, NotFound
from harness.domain.evals.run import (
    ANSWER_PLACEHOLDER,
    RUNNABLE_STATES,
    EvalRun,
    RunState,
    Sample,
    SampleError,
    SuitePin,
    latest_lease_end,
)
from harness.ports import MOST_LISTED
from harness.store.memory.state import Unit, need
from harness.store.rules import ENDED, checked_sample, no_such_run


class MemorySuites:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def put(self, pin: SuitePin, now: datetime) -> None:
        self._unit.writing.suites.setdefault(pin.digest, (pin, now))

    def get(self, digest: str) -> SuitePin:
        try:
            return self._unit.state.suites[digest][0]
        except KeyError:
            raise NotFound(f"no suite with the digest {digest} is stored") from None

    def all(self) -> Sequence[SuitePin]:
        by_digest = sorted(self._unit.state.suites.values(), key=lambda each: each[0].digest)
        return [pin for pin, _ in sorted(by_digest, key=lambda each: each[1], reverse=True)]


class MemoryEvalRuns:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, run: EvalRun) -> None:
        state = self._unit.writing
        need(state.targets, "target", run.target)
        if run.id in state.runs:
            raise InputError(f"the eval run {run.id} is stored already")
        state.runs[run.id] = run

    def get(self, run: str) -> EvalRun:
        try:
            return self._unit.state.runs[run]
        except KeyError:
            raise no_such_run(run) from None

    def list(
        self, *, states: Sequence[RunState] = (), limit: int = MOST_LISTED
    ) -> Sequence[EvalRun]:
        return self._newest(states)[:limit]

    def _newest(self, states: Sequence[RunState] = ()) -> "Sequence[EvalRun]":
        found = [
            run for run in self._unit.state.runs.values() if not states or run.state in states
        ]
        return sorted(found, key=lambda run: (run.created_at, run.id), reverse=True)

    def of_targets(self, targets: Collection[str]) -> Sequence[EvalRun]:
        return [run for run in self._newest() if run.target in targets]

    def scored(self, run: str) -> bool:
        samples = self._unit.state.samples.get(run, {}).values()
        return any(each.error is not SampleError.INFRA for each in samples)

    def shared(self, fingerprint: str, *, not_before: datetime) -> EvalRun | None:
        fitting = (
            run
            for run in self._newest()
            if run.fingerprint == fingerprint
            and run.state is not RunState.FAILED
            and run.created_at >= not_before
        )
        return next(fitting, None)

    def set_state(self, run: str, state: RunState, message: str = "") -> None:
        found = self.get(run)
        running, failed = state is RunState.RUNNING, state is RunState.FAILED
        self._unit.writing.runs[run] = replace(
            found,
            state=state,
            message=message,
            lease_owner=found.lease_owner if running else None,
            lease_until=found.lease_until if running else None,
            failures=found.failures + failed,
        )

    def leave(self, run: str, owner: str, state: RunState, message: str = "") -> bool:
        ours = self.get(run).lease_owner == owner
        if ours:
            self.set_state(run, state, message)
        return ours

    def want(self, run: str, items: int) -> None:
        found = self.get(run)
        more = items > found.wanted or found.state is not RunState.DONE
        changed = replace(found, wanted=max(items, found.wanted))
        if found.state in ENDED and more:
            changed = replace(changed, state=RunState.QUEUED, message="")
        self._unit.writing.runs[run] = changed

    def lease(self, run: str, owner: str, *, now: datetime, until: datetime) -> bool:
        found = self.get(run)
        furthest = latest_lease_end(now, (until - now).total_seconds())
        theirs = found.lease_until if found.lease_owner != owner else None
        taken = theirs is not None and now < theirs <= furthest
        if taken or found.state not in RUNNABLE_STATES:
            return False
        self._unit.writing.runs[run] = replace(found, lease_owner=owner, lease_until=until)
        return True

    def release(self, owner: str) -> Sequence[str]:
        state = self._unit.writing
        given_up = [run.id for run in state.runs.values() if run.lease_owner == owner]
        for run in given_up:
            state.runs[run] = replace(
                state.runs[run], lease_owner=None, lease_until=None, state=RunState.QUEUED
            )
        return given_up

    def store_sample(self, sample: Sample) -> bool:
        state = self._unit.writing
        checked = checked_sample(sample)
        if sample.run not in state.runs:
            raise NotFound(f"there is no eval run {sample.run} to store a sample of")
        stored = state.samples.get(sample.run, {})
        key = (sample.item, sample.epoch)
        if key in stored:
            return False
        state.samples[sample.run] = {**stored, key: checked}
        return True

    def done(self, run: str) -> frozenset[tuple[str, int]]:
        return frozenset(self._unit.state.samples.get(run, {}))

    def samples(self, run: str, *, below: int | None = None) -> Sequence[Sample]:
        stored = self._unit.state.samples.get(run, {}).values()
        wanted = [each for each in stored if below is None or each.position < below]
        return sorted(wanted, key=lambda each: (each.position, each.epoch, each.item))

    def outcomes(self, run: str, *, below: int) -> Sequence[Sample]:
        return [
            replace(each, prompt="", answer=ANSWER_PLACEHOLDER if each.answer else "")
            for each in self.samples(run, below=below)
        ]

    def progress(self, run: str) -> tuple[int, float, int, int]:
        stored = self._unit.state.samples.get(run, {}).values()
        return (
            len(stored),
            sum((each.cost_usd or 0.0 for each in stored), 0.0),
            sum(each.input_tokens for each in stored),
            sum(each.output_tokens for each in stored),
        )
