"""Records of suites (named by a hash of their content), eval runs with their leases, and
samples.

A run's signature omits the columns that workers change, because workers cannot sign runs.
`evals.runner` calls the models, and `harness.proposals.eval_queue` has the queue.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.frame.errors import LeaseLost, NotFound
from harness.frame.pagination import MOST_LISTED
from harness.frame.plain_data import hash_content
from harness.frame.records.columns import (
    Values,
    added_count,
    amount,
    at_least,
    one_of,
    share,
    storable,
    text,
    time,
)
from harness.frame.records.record import record
from harness.frame.records.repository import Records
from harness.frame.records.signed_tables import sign_rows_of
from harness.frame.signing.keyring import KeyPurpose
from harness.gate.incumbent_days import MEAN_RUN_PREFIX
from harness.gate.run import (
    ANSWER_PLACEHOLDER,
    COLUMNS,
    RUNNABLE_STATES,
    UNREADABLE,
    AnswerColumns,
    EvalRun,
    RunState,
    Sample,
    SampleError,
    latest_lease_end,
)
from harness.gate.suite_plan import SuitePin
from harness.providers.records import target

# Append-only (trigger): the digest is the hash of the content.
SUITE: Final = record(
    SuitePin,
    "suite",
    text("digest"),
    time("created_at"),
    sa.Column(
        "texts",
        sa.Text,
        nullable=False,
        server_default="",
    ),
    at_least("items", 0),
    key="digest",
    signed=True,
    also=lambda pin: {"digest": pin.digest},
)

suite = SUITE.table

EVAL_RUN: Final = record(
    EvalRun,
    "eval_run",
    # Text, because an integer column cannot store a seed of 64 bits without a sign.
    text("order_seed"),
    text("fingerprint"),
    one_of("state", RunState),
    at_least("epochs", 1),
    *(at_least(column, 0) for column in ("wanted", "failures", "max_tokens")),
    amount("max_cost_usd"),
    sa.CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_whole"),
    sa.Index("ix_eval_run_created_at", "created_at", "id"),
    sa.Index("ix_eval_run_target", "target", "created_at"),
    sa.Index(
        "ix_eval_run_target_suite",
        "target",
        "suite",
        "created_at",
        "id",
        "state",
    ),
    sa.Index("ix_eval_run_fingerprint", "fingerprint", "created_at"),
    sa.Index("ix_eval_run_state", "state", "created_at", "id"),
    sa.Index("ix_eval_run_lease_owner", "lease_owner"),
    refers={"target": target},
    signed=True,
    flat="budget",
    also=lambda run: {"fingerprint": run.fingerprint},
)

# The signature omits these columns, because workers change them, and workers cannot sign runs.
eval_run = sign_rows_of(
    EVAL_RUN.table,
    changing=(
        "wanted",
        "state",
        "lease_owner",
        "lease_until",
        "failures",
        "message",
        "waits_since",
        "retry_at",
        "patience_since",
    ),
)

# Triggers refuse deletions and changes of scores. The key allows one score per item and epoch.
SAMPLE: Final = record(
    Sample,
    "sample",
    added_count("cached_tokens"),
    added_count("judge_calls"),
    # Digests of the original texts. They stay when retention blanks the texts.
    text("answer_sha256", nullable=True),
    text("prompt_sha256", nullable=True),
    share("strict"),
    share("lenient"),
    # A missing score needs an error. SQLite stores NaN as NULL, which other CHECKs accept.
    sa.CheckConstraint("strict IS NOT NULL OR error IS NOT NULL", name="scored_or_error"),
    one_of("error", SampleError),
    *(at_least(column, 0) for column in ("position", "input_tokens", "output_tokens")),
    *(at_least(column, 0) for column in ("cached_tokens", "judge_calls")),
    *(amount(column) for column in ("cost_usd", "judge_cost_usd", "duration_s")),
    sa.Index("ix_sample_run_position", "run", "position", "epoch"),
    key="run item epoch",
    refers={"run": eval_run},
    signed=True,
    also=lambda new: text_digests(new.answer, new.prompt),
)

# The signature covers the texts' digests, because retention may blank the texts.
sample = sign_rows_of(
    SAMPLE.table,
    purpose=KeyPurpose.WORKER,
    changing=("answer", "prompt"),
    decides=False,
)


def text_digests(answer: str, prompt: str) -> dict[str, str]:
    """Returns the SHA-256 digests of a sample's texts in their stored form."""
    return {
        "answer_sha256": hash_content(storable(answer)),
        "prompt_sha256": hash_content(storable(prompt)),
    }


NO_SUCH_RUN: Final = "there is no eval run {}; `swapproof eval list` shows them"

EMPTY_DIGEST: Final = hash_content(b"")

NEWEST_RUNS = sa.select(eval_run).order_by(eval_run.c.created_at.desc(), eval_run.c.id.desc())

_RANKED = (
    sa.select(
        eval_run.c.id,
        sa.func.row_number()
        .over(
            partition_by=(eval_run.c.target, eval_run.c.suite),
            order_by=(eval_run.c.created_at.desc(), eval_run.c.id.desc()),
        )
        .label("place"),
    )
    .where(
        eval_run.c.target.in_(sa.bindparam("targets", expanding=True)),
        eval_run.c.state.in_(sa.bindparam("states", expanding=True)),
    )
    .subquery("ranked")
)

# Ranks by an index instead of reading all runs, because a target may have very many runs.
NEWEST_OF_TARGETS = NEWEST_RUNS.where(
    eval_run.c.id.in_(sa.select(_RANKED.c.id).where(_RANKED.c.place == 1))
)

ENDED_STATES: Final = tuple(state for state in RunState if state not in RUNNABLE_STATES)

IS_RUNNABLE = eval_run.c.state.in_([state.value for state in RUNNABLE_STATES])

STATE_OF_RUN = sa.select(eval_run.c.state, eval_run.c.lease_owner).where(
    eval_run.c.id == sa.bindparam("run")
)

STATE_OF_HELD_RUN = STATE_OF_RUN.with_for_update(read=True)

CHANGE_RUN = sa.update(eval_run).where(eval_run.c.id == sa.bindparam("run"))

LEASE = CHANGE_RUN.where(
    IS_RUNNABLE,
    sa.or_(
        eval_run.c.lease_owner.is_(None),
        eval_run.c.lease_owner == sa.bindparam("owner"),
        eval_run.c.lease_until <= sa.bindparam("now"),
        eval_run.c.lease_until > sa.bindparam("furthest"),
    ),
).values(lease_owner=sa.bindparam("owner"), lease_until=sa.bindparam("until"))

NOT_WAITING: Final[Values] = {
    "waits_since": None,
    "retry_at": None,
    "patience_since": None,
}

RELEASE_RUN = CHANGE_RUN.where(eval_run.c.lease_owner == sa.bindparam("owner"))

SAMPLES = (
    sa.select(sample)
    .where(sample.c.run == sa.bindparam("run"))
    .order_by(sample.c.position, sample.c.epoch, sample.c.item)
)

# Reads the digest too, because retention may have blanked the answer.
IS_EMPTY_ANSWER = sa.and_(
    sample.c.answer == "",
    sa.func.coalesce(sample.c.answer_sha256, EMPTY_DIGEST) == EMPTY_DIGEST,
)

TEXT_PLACEHOLDERS = {
    "answer": sa.case((IS_EMPTY_ANSWER, ""), else_=ANSWER_PLACEHOLDER).label("answer"),
    "prompt": sa.literal("").label("prompt"),
}

READ_OUTCOMES = (
    sa.select(*(TEXT_PLACEHOLDERS.get(column.name, column) for column in sample.c))
    .where(
        sample.c.run == sa.bindparam("run"),
        sample.c.position < sa.bindparam("below"),
    )
    .order_by(sample.c.position, sample.c.epoch, sample.c.item)
)

# Reads in the order of the primary key. The index on position would look up each row by itself,
# which takes twice as long; `+ 0` keeps the planner from that index.
READ_FIGURES = sa.select(*(sample.c[name] for name in COLUMNS)).where(
    sample.c.run == sa.bindparam("run"),
    sample.c.position + 0 < sa.bindparam("below"),
)

# Callers sort, because with ORDER BY, SQLite would read the whole run.
SAMPLES_OF_ITEMS = sa.select(sample).where(
    sample.c.run == sa.bindparam("run"),
    sample.c.item.in_(sa.bindparam("items", expanding=True)),
)

# Databases limit the parameters of a statement to some thousands.
ITEMS_AT_ONCE: Final = 500

STORED_PAIRS = sa.select(sample.c.item, sample.c.epoch).where(
    sample.c.run == sa.bindparam("run")
)

HAS_SCORE = (
    sa.select(sample.c.item)
    .where(
        sample.c.run == sa.bindparam("run"),
        sample.c.error.is_(None) & sample.c.rule.not_in(UNREADABLE),
    )
    .limit(1)
)

# The last prompt is enough to recognise a blanked run, because retention blanks all prompts of
# a run at once.
_LAST_PROMPT: Final = (
    sa.select(sample.c.prompt)
    .where(sample.c.run == eval_run.c.id)
    .order_by(sample.c.position.desc(), sample.c.epoch.desc())
    .limit(1)
    .scalar_subquery()
)

RUNS_WITH_TEXTS: Final = (
    sa.select(eval_run.c.id)
    .where(
        eval_run.c.state.in_([state.value for state in ENDED_STATES]),
        _LAST_PROMPT != "",
    )
    .order_by(eval_run.c.created_at, eval_run.c.id)
)

BLANK_TEXTS: Final = (
    sa.update(sample).where(sample.c.run == sa.bindparam("of_run")).values(answer="", prompt="")
)

COUNT = sa.select(sa.func.count()).where(sample.c.run == sa.bindparam("run"))

PROGRESS = sa.select(
    sa.func.count().label("samples"),
    sa.func.coalesce(sa.func.sum(sample.c.cost_usd), 0.0).label("cost_usd"),
    sa.func.coalesce(sa.func.sum(sample.c.input_tokens), 0).label("input_tokens"),
    sa.func.coalesce(sa.func.sum(sample.c.output_tokens), 0).label("output_tokens"),
).where(sample.c.run == sa.bindparam("run"))


class Suites(Records[SuitePin]):
    """Pins of suites, by the digest of their content."""

    record = SUITE
    order = (suite.c.created_at.desc(), suite.c.digest)
    missing = "no suite with the digest {} is stored"

    def put(self, pin: SuitePin, now: datetime) -> None:
        """Stores a suite's pin unless its digest is stored."""
        self._tx.write_new(suite, self.record.write(pin) | {"created_at": now})

    def get(self, id_: str) -> SuitePin:
        return self._tx.once((suite.name, id_), lambda: super(Suites, self).get(id_))


class EvalRuns(Records[EvalRun]):
    """Eval runs and their samples. A score never changes once it is stored."""

    record = EVAL_RUN
    order = (eval_run.c.created_at.desc(), eval_run.c.id.desc())
    missing = NO_SUCH_RUN

    def add_new(self, run: EvalRun) -> bool:
        """Adds a run unless its id is stored. Returns whether it was added."""
        return self._tx.write_new(eval_run, self.record.write(run))

    def list(
        self, *, states: Sequence[RunState] = (), limit: int = MOST_LISTED
    ) -> Sequence[EvalRun]:
        """Lists runs, newest first, without forged rows.

        Args:
            states: empty for all.
        """
        query = self._select(eval_run.c.state.in_(states) if states else None)
        return self._trusted(self._tx.read(query.limit(limit)))

    def of_targets(self, targets: Collection[str]) -> Sequence[EvalRun]:
        """Lists all runs on these targets, newest first."""
        return self._all(self._select(eval_run.c.target.in_(sorted(targets))))

    def of_suite(
        self,
        target: str,
        suite: str,
        suite_digest: str,
    ) -> Iterator[EvalRun]:
        """Yields a target's runs of one version of a suite lazily, newest first."""
        wanted_values = {
            "target": target,
            "suite": suite,
            "suite_digest": suite_digest,
        }
        conditions = (eval_run.c[name] == value for name, value in wanted_values.items())
        for row in self._tx.read(self._select(*conditions)):
            yield from self._verified([row])

    def unfinished(self, fingerprint: str) -> Sequence[EvalRun]:
        """Lists queued and running runs with this fingerprint."""
        return self._all(self._select(eval_run.c.fingerprint == fingerprint, IS_RUNNABLE))

    def newest_of_targets(
        self, targets: Collection[str], states: Sequence[RunState]
    ) -> Sequence[EvalRun]:
        """Lists the newest run of each target and suite, among runs in these states."""
        values = {
            "targets": sorted(targets),
            "states": [state.value for state in states],
        }
        return self._all(NEWEST_OF_TARGETS, values)

    def scored(self, run: str) -> bool:
        """Tells whether at least one answer is readable and has a score."""
        return self._tx.read(HAS_SCORE, {"run": run}).first() is not None

    def shared(self, fingerprint: str, *, not_before: datetime) -> EvalRun | None:
        """Returns the newest run that another proposal may reuse; None without one.

        Args:
            not_before: the earliest start of a run that is fresh enough.

        Failed runs and means of other runs do not count.
        """
        same_fingerprint = eval_run.c.fingerprint == fingerprint
        has_not_failed = eval_run.c.state != RunState.FAILED.value
        is_one_run = ~eval_run.c.id.startswith(MEAN_RUN_PREFIX, autoescape=True)
        is_fresh = eval_run.c.created_at >= not_before
        query = self._select(same_fingerprint, is_fresh, has_not_failed, is_one_run)
        return self._first(query.limit(1))

    def set_state(
        self,
        run: str,
        state: RunState,
        message: str = "",
    ) -> None:
        """Sets the state. All states but RUNNING clear the lease; FAILED counts a failure."""
        # RUNNING needs no `serialize`, because only the worker with the lease sets it.
        self._change_run(
            run, _state_columns(state, message), decides=state is not RunState.RUNNING
        )

    def leave(
        self,
        run: str,
        owner: str,
        state: RunState,
        message: str = "",
    ) -> bool:
        """Sets the state for the lease's owner. Returns False if it is not the owner."""
        # The UPDATE itself compares the owner, so that a worker cannot change a stopped run.
        own_run = RELEASE_RUN.values(_state_columns(state, message))
        has_left = self._tx.write(own_run, {"run": run, "owner": owner}) == 1
        if not has_left:
            self.get(run)
        return has_left

    def wait(self, run: EvalRun, owner: str) -> bool:
        """Queues a run that waits for a provider. Returns False if another owner has the lease.

        Args:
            owner: the worker that leaves the run.
        """
        wait_columns = {name: getattr(run, name) for name in NOT_WAITING}
        changes = {**_state_columns(RunState.QUEUED, run.message), **wait_columns}
        return self._tx.write(RELEASE_RUN.values(changes), {"run": run.id, "owner": owner}) == 1

    def ask_again(self, run: str, now: datetime) -> None:
        """Ends the pause of a run that waits for a provider, and restarts its patience."""
        self._change_run(run, {"retry_at": now, "patience_since": now})

    def end_wait(self, run: str) -> None:
        """Clears the wait of a run whose provider answers again."""
        self._change_run(run, {**NOT_WAITING, "message": ""}, decides=False)

    def blank_texts(
        self,
        suite: str,
        before: datetime,
        *,
        limit: int,
    ) -> int:
        """Removes prompts and answers from ended runs that began before a moment, at most
        `limit` runs.

        Returns the number of runs. Scores and the texts' digests stay.
        """
        old_runs = RUNS_WITH_TEXTS.where(
            eval_run.c.suite == suite, eval_run.c.created_at < before
        )
        runs = self._tx.read(old_runs.limit(limit)).scalars().all()
        for run in runs:
            self._tx.write(BLANK_TEXTS, {"of_run": run})
        return len(runs)

    def want(self, run: str, items: int) -> None:
        """Increases the number of wanted items, and queues the run if it ended."""
        # Serializes before it locks a run, so that no two transactions wait for each other.
        self._tx.serialize()
        stored = self.get(run)
        changes: dict[str, object] = {"wanted": max(items, stored.wanted)}
        # A DONE run without further items stays DONE, because it has no work
        # left.
        has_more_work = items > stored.wanted or stored.state is not RunState.DONE
        if stored.state in ENDED_STATES and has_more_work:
            changes |= {"state": RunState.QUEUED.value, "message": ""}
        self._change_run(run, changes)

    def _change_run(
        self,
        run: str,
        changes: Values,
        *,
        decides: bool = True,
    ) -> None:
        """Changes a run. Raises NotFound if it is not stored."""
        if not self._tx.write(CHANGE_RUN.values(changes), {"run": run}, decides=decides):
            self.get(run)

    def lease(
        self,
        run: str,
        owner: str,
        *,
        now: datetime,
        until: datetime,
    ) -> bool:
        """Takes or renews the lease. Returns False if the run ended or is another worker's.

        A worker may take a lease that has expired, or that ends after `latest_lease_end`.
        """
        furthest = latest_lease_end(now, (until - now).total_seconds())
        values = {
            "run": run,
            "owner": owner,
            "now": now,
            "until": until,
            "furthest": furthest,
        }
        is_taken = self._tx.write(LEASE, values, decides=False) == 1
        if not is_taken:
            self.get(run)
        return is_taken

    def release(self, owner: str) -> Sequence[str]:
        """Takes all leases from a worker, and queues its runs again. Returns their ids."""
        own_runs = eval_run.c.lease_owner == owner
        released = self._tx.read(sa.select(eval_run.c.id).where(own_runs)).scalars().all()
        queued_columns = {"state": RunState.QUEUED.value, **NOT_WAITING}
        self._change(
            own_runs,
            lease_owner=None,
            lease_until=None,
            **queued_columns,
        )
        return released

    def store_sample(self, sample_: Sample, *, owner: str | None = None) -> bool:
        """Stores a sample. Returns False if that run, item and epoch is stored already.

        Args:
            owner: the worker that holds the run's lease. It keeps the lease until the
                transaction ends.

        Raises LeaseLost if another worker has the lease.
        """
        values = SAMPLE.write(sample_)
        run = self._tx.read(STATE_OF_RUN, {"run": sample_.run}).one_or_none()
        if run is None:
            raise NotFound(f"there is no eval run {sample_.run} to store a sample of")
        if run.state not in ENDED_STATES:
            # Locks the run, so that it can neither end nor change its worker meanwhile.
            run = self._tx.read(STATE_OF_HELD_RUN, {"run": sample_.run}).one()
        if owner not in (None, run.lease_owner):
            raise LeaseLost(
                f"{run.lease_owner or 'no worker'} holds the lease of run {sample_.run}, not "
                f"{owner}: the answer to {sample_.item!r} is not stored"
            )
        return self._tx.write_new(sample, values)

    def done(self, run: str) -> frozenset[tuple[str, int]]:
        """Returns the stored (item, epoch) pairs of a run, with or without a score."""
        return frozenset(
            (row.item, row.epoch) for row in self._tx.read(STORED_PAIRS, {"run": run})
        )

    def samples(self, run: str, *, below: int | None = None) -> Sequence[Sample]:
        """Lists a run's samples by position and epoch.

        Args:
            below: only lower positions.
        """
        query = SAMPLES if below is None else SAMPLES.where(sample.c.position < below)
        rows = self._tx.checked(sample, self._tx.read(query, {"run": run}))
        return [SAMPLE.read(row) for row in rows]

    def outcomes(self, run: str, *, below: int) -> Sequence[Sample]:
        """Lists a run's samples without their texts, which is faster for the gate. Replaces an
        answer by ANSWER_PLACEHOLDER, unless it is empty.
        """
        values = {"run": run, "below": below}
        rows = self._tx.checked(sample, self._tx.read(READ_OUTCOMES, values))
        return [SAMPLE.read(row) for row in rows]

    def figures(self, run: str, *, below: int) -> AnswerColumns:
        """Loads the figures of a run's samples in any order. It verifies no signatures, because
        that would take too long for a page's sums.
        """
        rows = self._tx.read(READ_FIGURES, {"run": run, "below": below})
        return AnswerColumns.from_rows(rows.all())

    def samples_of(self, run: str, items: Collection[str]) -> Sequence[Sample]:
        """Lists the samples of these items, by position and epoch."""
        names = sorted(set(items))
        loaded = []
        for first in range(0, len(names), ITEMS_AT_ONCE):
            batch = names[first : first + ITEMS_AT_ONCE]
            rows = self._tx.read(SAMPLES_OF_ITEMS, {"run": run, "items": batch})
            loaded += [SAMPLE.read(row) for row in self._tx.checked(sample, rows)]
        return sorted(
            loaded, key=lambda sample_: (sample_.position, sample_.epoch, sample_.item)
        )

    def count(self, run: str) -> int:
        """Counts a run's stored samples."""
        return int(self._tx.read(COUNT, {"run": run}).scalar_one())

    def progress(self, run: str) -> tuple[int, float, int, int]:
        """Returns a run's samples, cost in US dollars, input tokens and output tokens so far.

        Samples without a known cost add nothing, so the cost may be too low.
        """
        row = self._tx.read(PROGRESS, {"run": run}).one()
        return (
            row.samples,
            row.cost_usd,
            int(row.input_tokens),
            int(row.output_tokens),
        )


def _state_columns(state: RunState, message: str) -> dict[str, object]:
    """Returns the columns of a new state. Every state but RUNNING also ends lease and wait."""
    changes: dict[str, object] = {"state": state.value, "message": message}
    if state is not RunState.RUNNING:
        changes |= {
            "lease_owner": None,
            "lease_until": None,
            **NOT_WAITING,
        }
    if state is RunState.FAILED:
        changes["failures"] = eval_run.c.failures + 1
    return changes
