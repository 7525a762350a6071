"""The control process may die at any write: what is left is a state of the table, none between.

Real kills of real processes are in tests/acceptance/test_kill_nine.py. Here an undisturbed job
is written down first, statement by statement; then the process dies before each. That is also
the death after the commit of the unit of work before it. Of the last unit the next life sees
the end.
"""

import shutil
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.app.store.store import Store
from harness.frame.signing.audit_log import AuditLog
from harness.routing.control import routes
from harness.routing.proposal import ProposalPhase
from harness.routing.records.proposals import Rollouts
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from tests.support.control.bare_installation import read_history
from tests.support.control.colours_suite import ITEMS
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.crashing_store import Crash
from tests.support.control.known_secrets import SECRET
from tests.support.control.manual_clock import ManualClock
from tests.support.site.signing_keys import CONTROL

pytestmark = pytest.mark.req("F1", "F5")

# Statements that store samples are many and alike: a few of them will do.
SAMPLE = "INSERT sample"
SAMPLES = 10
STATEMENTS = 70
# The first so many have a write of each kind among them; `make verify` has the others.
KINDS = 14


def written(statement: str) -> str:
    """`INSERT sample` for a statement of the job that writes, else nothing. An eval worker's
    heartbeat, in a thread of its own, comes whenever time has passed.
    """
    if threading.current_thread() is not threading.main_thread():
        return ""
    verb, *rest = statement.split()
    return f"{verb} {rest[verb == 'INSERT']}" if verb in ("INSERT", "UPDATE") else ""


def opened(url: str, folder: Path) -> SmallInstallation:
    clock = ManualClock()
    made = SmallInstallation(
        folder,
        Store(
            url,
            secret=SECRET,
            clock=clock,
            signatures=CONTROL,
        ),
        clock=clock,
    )
    made.set_up()
    return made


def process(world: SmallInstallation, url: str) -> Store:
    return Store(
        url,
        secret=SECRET,
        clock=world.clock,
        signatures=CONTROL,
    )


@pytest.fixture(scope="module")
def points(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Statements to die at, by number: those of a kind that none before them has come first."""
    folder = tmp_path_factory.mktemp("undisturbed")
    url = f"sqlite:///{shutil.copyfile(sqlite_template, folder / 'swapproof.db')}"
    world = opened(url, folder)
    first = process(world, url)
    every = list[str]()

    def note(
        _db: object,
        _cursor: object,
        statement: str,
        *_: object,
    ) -> None:
        every.extend(filter(None, [written(statement)]))

    sa.event.listen(first._engine, "before_cursor_execute", note)
    proposal = world.propose("sim/better")
    assert live(world, proposal.id, first, turns=40)
    first.close()
    world.store.close()
    numbered = dict(enumerate(every, 1))
    alike = [number for number, kind in numbered.items() if kind == SAMPLE]
    kept = {
        *(n for n in numbered if n not in alike),
        *alike[:: len(alike) // SAMPLES],
    }
    new = {kind: number for number, kind in reversed(numbered.items())}
    chosen = sorted(kept, key=lambda number: (number not in new.values(), number))
    return {number: numbered[number] for number in chosen}


def live(
    world: SmallInstallation,
    proposal: str,
    store: Store,
    turns: int,
) -> bool:
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


def job_that_dies(
    world: SmallInstallation,
    dying: Store,
    next_life: Store,
) -> None:
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
        assert len(Verdicts(tx).for_proposal(proposal.id)) == 1
        assert [r.state.value for r in Rollouts(tx).list(route="chat")] == ["promoted"]
        assert AuditLog(tx).first_break() is None
        for run in EvalRuns(tx).list():
            asked = [(s.item, s.epoch) for s in EvalRuns(tx).samples(run.id)]
            assert len(asked) == len(set(asked)) <= ITEMS


def test_the_job_is_killed_at_every_kind_of_write(points: dict[int, str]) -> None:
    """A write that is added must be killed at, too: raise the counts above."""
    assert len(points) <= STATEMENTS
    kinds = list(points.values())
    assert (
        set(kinds[:KINDS])
        == set(kinds)
        == {
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
    )


def dies_at_statement(store: Store, number: int) -> list[int]:
    """How many are left, in the list's one place."""
    left = [number]

    def count(
        _db: object,
        _cursor: object,
        statement: str,
        *_: object,
    ) -> None:
        if written(statement):
            left[0] -= 1
            if left[0] == 0:
                raise Crash

    sa.event.listen(store._engine, "before_cursor_execute", count)
    return left


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("database_url", "number"),
    [
        pytest.param(name, n, marks=[] if n in sample else [pytest.mark.verify])
        for name, sample in (("sqlite", range(KINDS)), ("postgresql", (5,)))
        for n in range(STATEMENTS)
    ],
    indirect=["database_url"],
)
def test_a_crash_leaves_nothing_of_its_unit_of_work_and_the_next_process_ends_the_job(
    database_url: str,
    tmp_path: Path,
    points: dict[int, str],
    number: int,
) -> None:
    world = opened(database_url, tmp_path)
    dying = process(world, database_url)
    left = dies_at_statement(dying, [*points][number % len(points)])
    job_that_dies(world, dying, world.store)
    assert left[0] <= 0
    dying.close()
    world.store.close()
