"""The control process may die at any write: what is left is a state of the table, none between.

Real kills of real processes are in tests/acceptance/test_kill_nine.py. Here an undisturbed job
is written down first, unit of work by unit of work and statement by statement; then the process
dies at each: before a commit, after it, and in the middle of a unit of work.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa
from _pytest.mark import ParameterSet

from harness.control.routing import routes
from harness.domain.proposals.proposal import ProposalPhase
from harness.store.store import Store
from harness.store.transaction import Transaction
from tests.support.control.control_plane import (
    ITEMS,
    SECRET,
    Crash,
    CrashingStore,
    SmallInstallation,
    read_history,
)
from tests.support.control.manual_clock import ManualClock
from tests.support.sampling import sampled
from tests.support.site.signing_keys import CONTROL

pytestmark = pytest.mark.req("F1", "F5")

# Units of work and statements that store samples are many and alike: a few of them will do.
SAMPLE = "INSERT sample"
UNITS, SAMPLE_UNITS = 16, 11
STATEMENTS = 60
# The first so many have a write of each kind among them; `make verify` has the others.
KIND_UNITS, KIND_STATEMENTS = 8, 13


def commits() -> list[ParameterSet]:
    """Units of work to die at, before and after their commit; of each that brings a kind of
    write `make test` has one of the two.
    """
    return [
        pytest.param(
            number,
            after,
            id=f"{number}-{'after' if after else 'before'}",
            marks=[]
            if number < KIND_UNITS and after == (number % 2 == 1)
            else [pytest.mark.verify],
        )
        for number in range(UNITS + SAMPLE_UNITS)
        for after in (False, True)
    ]


@dataclass
class Journal:
    """What one job wrote, in order. units: the statements of each unit of work."""

    units: list[list[str]] = field(default_factory=list)

    def points(self) -> list[int]:
        """Numbers of the units to die at: each that is not a sample's, and some of those.

        In front are those that bring a kind of statement that none before them has.
        """
        alike = [n for n, unit in enumerate(self.units, 1) if unit == [SAMPLE]]
        others = [n for n, unit in enumerate(self.units, 1) if unit != [SAMPLE]]
        step = (len(alike) - 1) / (SAMPLE_UNITS - 1)
        points = others + [alike[round(k * step)] for k in range(SAMPLE_UNITS)]
        return new_kinds_first(points, self.units)

    def statements(self) -> list[int]:
        """Numbers of the statements to die at, ordered as points: each but a sample's."""
        every = [statement for unit in self.units for statement in unit]
        chosen = [n for n, statement in enumerate(every, 1) if statement != SAMPLE]
        return new_kinds_first(chosen, [[statement] for statement in every])


def new_kinds_first(points: list[int], written: list[list[str]]) -> list[int]:
    """written: the kinds of statement at each point, which counts from 1."""
    known: set[str] = set()
    new: list[int] = []
    old: list[int] = []
    for point in points:
        kinds = set(written[point - 1])
        (old if kinds <= known else new).append(point)
        known |= kinds
    return new + old


class JournalledStore:
    def __init__(self, store: Store, journal: Journal) -> None:
        self._store, self._journal = store, journal
        sa.event.listen(store._engine, "before_cursor_execute", self._note)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        self._journal.units.append([])
        with self._store.write() as tx:
            yield tx

    def _note(self, _db: object, _cursor: object, statement: str, *_: object) -> None:
        if name := written(statement):
            self._journal.units[-1].append(name)


def written(statement: str) -> str:
    """`INSERT sample` for a statement that writes, else nothing."""
    verb, *rest = statement.split()
    return f"{verb} {rest[verb == 'INSERT']}" if verb in ("INSERT", "UPDATE") else ""


def opened(url: str, folder: Path) -> SmallInstallation:
    clock = ManualClock()
    made = SmallInstallation(
        folder, Store(url, secret=SECRET, clock=clock, signatures=CONTROL), clock=clock
    )
    made.set_up()
    return made


def process(world: SmallInstallation, url: str) -> Store:
    """The store of a process of its own."""
    return Store(url, secret=SECRET, clock=world.clock, signatures=CONTROL)


@pytest.fixture(scope="module")
def journal(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Journal:
    folder = tmp_path_factory.mktemp("undisturbed")
    url = f"sqlite:///{shutil.copyfile(sqlite_template, folder / 'swapgate.db')}"
    world, journal = opened(url, folder), Journal()
    first = process(world, url)
    proposal = world.propose("sim/better")
    assert live(world, proposal.id, JournalledStore(first, journal), turns=40)  # type: ignore[arg-type]
    first.close()
    world.store.close()
    return journal


def live(world: SmallInstallation, proposal: str, store: Store, turns: int) -> bool:
    """One life of a control process. Whether it saw the proposal's end."""
    ctx = world.context(store)
    try:
        for _ in range(turns):
            world.run_once(ctx)
            world.feed()
            if not world.get(proposal).open:
                return True
    except Crash:
        # The worker that died with it holds its lease until that runs out.
        world.clock.advance(30)
    return False


def job_that_dies(world: SmallInstallation, dying: Store, next_life: Store) -> None:
    proposal = world.propose("sim/better")
    live(world, proposal.id, dying, turns=40)
    assert live(world, proposal.id, next_life, turns=80)

    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.PROMOTED
    table = routes.load_table(world.context())
    assert table.routes["chat"].incumbent == after.candidate
    assert table.routes["chat"].canary is None
    kinds = [record.kind for record in read_history(world.context(), "chat")]
    assert kinds == ["promotion", "weight", "weight", "canary", "baseline"]
    with world.store.read() as tx:
        assert len(tx.verdicts.for_proposal(proposal.id)) == 1
        assert [r.state.value for r in tx.rollouts.list(route="chat")] == ["promoted"]
        assert tx.audit.first_break() is None
        for run in tx.runs.list():
            asked = [(s.item, s.epoch) for s in tx.runs.samples(run.id)]
            assert len(asked) == len(set(asked)) <= ITEMS


def test_the_job_is_killed_at_every_kind_of_write(journal: Journal) -> None:
    """A write that is added must be killed at, too: raise the counts above."""
    hit = {statement for n in journal.points() for statement in journal.units[n - 1]}
    assert len(journal.points()) == UNITS + SAMPLE_UNITS
    assert len(journal.statements()) <= STATEMENTS
    every = [statement for unit in journal.units for statement in unit]
    short = journal.points()[:KIND_UNITS], journal.statements()[:KIND_STATEMENTS]
    assert {kind for n in short[0] for kind in journal.units[n - 1]} == hit
    assert {every[n - 1] for n in short[1]} == hit - {SAMPLE}
    assert hit == {
        "INSERT eval_run",
        "UPDATE eval_run",
        "INSERT sample",
        "INSERT verdict",
        "INSERT evidence",
        "INSERT rollout",
        "UPDATE rollout",
        "INSERT route_version",
        "UPDATE proposal",
        "INSERT audit_event",
        "UPDATE manifest",
        "INSERT alert",
        "INSERT served_model",
        "UPDATE served_model",
    }


@pytest.mark.parametrize(("number", "after_commit"), commits())
def test_a_crash_at_a_commit_leaves_a_right_state_and_the_next_process_ends_the_job(
    sqlite_url: str,
    tmp_path: Path,
    journal: Journal,
    number: int,
    after_commit: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    world = opened(sqlite_url, tmp_path)
    dying = CrashingStore(world.store, at=journal.points()[number], after_commit=after_commit)
    job_that_dies(world, dying, world.store)  # type: ignore[arg-type]
    assert dying.died
    world.store.close()


def dies_at_statement(store: Store, number: int) -> list[int]:
    """How many are left, in the list's one place."""
    left = [number]

    def count(_db: object, _cursor: object, statement: str, *_: object) -> None:
        if written(statement):
            left[0] -= 1
            if left[0] == 0:
                raise Crash

    sa.event.listen(store._engine, "before_cursor_execute", count)
    return left


def in_the_middle(url: str, folder: Path, journal: Journal, number: int) -> None:
    world = opened(url, folder)
    dying = process(world, url)
    points = journal.statements()
    left = dies_at_statement(dying, points[number % len(points)])
    job_that_dies(world, dying, world.store)
    assert left[0] <= 0
    dying.close()
    world.store.close()


@pytest.mark.parametrize("number", sampled(range(STATEMENTS), range(KIND_STATEMENTS)))
def test_a_crash_in_the_middle_of_a_unit_of_work_leaves_nothing_of_it(
    sqlite_url: str, tmp_path: Path, journal: Journal, number: int
) -> None:
    in_the_middle(sqlite_url, tmp_path, journal, number)


@pytest.mark.parametrize("number", sampled(range(1, STATEMENTS, 4), range(KIND_STATEMENTS)))
def test_a_crash_in_the_middle_of_a_unit_of_work_leaves_nothing_of_it_on_postgres(
    postgres_url: str, tmp_path: Path, journal: Journal, number: int
) -> None:
    in_the_middle(postgres_url, tmp_path, journal, number)
