from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from evals.runner.provider_client import ProviderFailed
from evals.suites.items import Item
from harness.app.store.store import Store
from harness.evals import drift_monitor as monitor
from harness.evals import drift_watches as watches
from harness.evals.records import Drift
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alert_record import AlertRecord
from harness.frame.alerts.records import Alerts
from harness.frame.errors import Conflict, InputError, NotAllowed, NotFound
from harness.frame.people.access import Actor, Role
from harness.frame.runtime.clock import SystemRandomIds
from harness.frame.signing.audit_log import AuditLog
from harness.gate.drift import DriftCheck, DriftCheckState
from harness.gate.pins import ServedModel, Sighting
from harness.gate.policy import DriftPolicy
from harness.gate.run import RunState
from harness.operations import alert_delivery
from harness.proposals import eval_queue
from harness.providers.records import Sightings, Targets
from harness.providers.target import Target
from harness.routing.records.runs import EvalRuns
from tests.support.control.colours_suite import SKILL, answer
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.crashing_store import Crash, CrashingStore
from tests.support.control.known_secrets import SECRET
from tests.support.control.manual_clock import ManualClock
from tests.support.control.people import ANN, BEN
from tests.support.site.command_line import FILE, CommandLine, installed
from tests.support.site.signing_keys import CONTROL

pytestmark = pytest.mark.req("F7")

DAY_S = 86_400.0
POLICY = DriftPolicy(every_s=DAY_S, items=None)
VIEWER = Actor("vic", Role.VIEWER, "pr_vic")


class Alias:
    """What is behind the name: as it was, until somebody changes it."""

    def __init__(self) -> None:
        self.skilled_like = "base"
        self.broken = False
        self.names = "base-1"

    def __call__(
        self,
        target: Target,
        item: Item,
        epoch: int,
    ) -> str:
        if self.broken:
            raise ProviderFailed("503 from the provider")
        behind = replace(target, model=self.skilled_like) if target.model == "base" else target
        return answer(behind, item, epoch)

    def served(self, target: Target, _item: Item) -> ServedModel:
        return ServedModel(self.names if target.model == "base" else target.model)


@pytest.fixture
def alias() -> Alias:
    return Alias()


@pytest.fixture
def world(tmp_path: Path, alias: Alias) -> SmallInstallation:
    clock = ManualClock()
    made = SmallInstallation(
        tmp_path,
        clock=clock,
        script=alias,
        served=alias.served,
        drift={"colours": POLICY},
    )
    made.set_up()
    return made


@pytest.fixture
def stored(
    tmp_path: Path,
    database_url: str,
    alias: Alias,
) -> Iterator[SmallInstallation]:
    clock = ManualClock()
    store = Store(
        database_url,
        secret=SECRET,
        clock=clock,
        signatures=CONTROL,
    )
    made = SmallInstallation(
        tmp_path,
        store,
        clock=clock,
        chance=SystemRandomIds(),
        script=alias,
        drift={"colours": replace(POLICY, items=30)},
    )
    made.set_up()
    yield made
    store.close()


def run_cycle(world: SmallInstallation, store: Store | None = None) -> None:
    """The drift job, the workers, the drift job: as the control process does."""
    ctx = world.context(store)
    monitor.run_once(ctx)
    eval_queue.run_once(ctx)
    monitor.run_once(ctx)
    world.clock.advance(1)


def days(world: SmallInstallation, count: int) -> None:
    for _ in range(count):
        run_cycle(world)
        world.clock.advance(DAY_S)


def status(world: SmallInstallation) -> watches.DriftStatus:
    (found,) = watches.list_drift_status(world.context())
    return found


def checks(world: SmallInstallation) -> list[DriftCheck]:
    with world.store.read() as tx:
        found = Drift(tx)._all(Drift(tx)._select())
    return sorted(found, key=lambda check: (check.started_at, check.number))


def open_alerts(world: SmallInstallation) -> dict[AlertKind, AlertRecord]:
    with world.store.read() as tx:
        return {record.kind: record for record in Alerts(tx).list(open_only=True)}


def actions(world: SmallInstallation) -> list[str]:
    with world.store.read() as tx:
        return [
            event.action for event in AuditLog(tx).all() if event.action.startswith("drift")
        ]


def test_an_unchanged_model_is_asked_each_day_and_nobody_is_told(
    world: SmallInstallation,
) -> None:
    world.add_route("mail")
    now = world.clock.now()
    with world.store.write() as tx:  # names that were seen before the baseline are no news
        for target in Targets(tx).all():
            Sightings(tx).note([Sighting(target, ServedModel("base-0"), now, now)])
    world.clock.advance(60)
    for _ in range(3):  # between two days nothing is asked
        run_cycle(world)
    (first,) = checks(world)
    assert status(world).next_at == first.started_at + timedelta(seconds=DAY_S)
    world.clock.advance(DAY_S)
    days(world, 4)
    run_cycle(world)

    assert status(world).state == "watching"
    assert status(world).comparisons == 5
    # Routes with one incumbent share a watch.
    assert status(world).routes == ("chat", "mail")
    assert len(checks(world)) == 6
    assert open_alerts(world) == {}
    assert actions(world) == ["drift.baseline"]


@pytest.mark.spine
def test_a_model_that_changed_behind_its_name_raises_an_alert_with_the_diff(
    world: SmallInstallation, alias: Alias
) -> None:
    days(world, 3)
    alias.skilled_like = "worse"
    days(world, 1)

    record = open_alerts(world)[AlertKind.DRIFT]
    assert record.subject == "route chat, suite colours"
    assert record.title == "sim/base answers colours differently than before: 41.7 points worse"
    assert "−41.7 points (95 % interval −5" in record.text
    assert "25 worse, 35 the same, 0 better" in record.text
    assert "Before: “c" in record.text
    assert "Now: “wrong”" in record.text
    assert status(world).state == "drifted"
    days(world, 3)  # people are told once, and the watch rests until somebody accepts
    alert_delivery.run_once(world.context())
    assert len(checks(world)) == 4
    assert [record.kind for record in world.sinks.kept["chat"]] == [AlertKind.DRIFT]
    with pytest.raises(Conflict, match="drift accept chat"):
        watches.start_checks(world.context(), ANN, "chat")
    (shown,) = watches.list_drift_reports(world.context(), "chat")
    assert len(shown.changes) == 25
    first = shown.changes[0]
    assert (first.score_before, first.score_now, first.answer_now) == (
        1.0,
        0.0,
        "wrong",
    )


@pytest.mark.spine
@pytest.mark.req("F6")
def test_another_name_in_a_users_answer_is_told_before_the_next_run(
    world: SmallInstallation,
) -> None:
    run_cycle(world)
    world.clock.advance(DAY_S / 2)
    now = world.clock.now()
    target = status(world).baseline.target  # type: ignore[union-attr]
    with world.store.write() as tx:  # as a router does
        Sightings(tx).note([Sighting(target, ServedModel("base-2"), now, now)])
    run_cycle(world)
    run_cycle(world)

    record = open_alerts(world)[AlertKind.SERVED_MODEL]
    assert record.title == "the provider of sim/base serves another model: base-2"
    assert "the runs so far used base-1" in record.text
    assert "`swapproof drift run chat`" in record.text
    assert record.count == 1
    assert len(checks(world)) == 1


@pytest.mark.req("F6")
def test_another_name_in_a_runs_answers_is_told_even_if_it_answers_as_well(
    world: SmallInstallation, alias: Alias
) -> None:
    days(world, 2)
    alias.names = "base-2"
    days(world, 3)

    assert set(open_alerts(world)) == {AlertKind.SERVED_MODEL}
    assert status(world).state == "watching"
    assert [check.served for check in checks(world)] == [("base-1",)] * 2 + [("base-2",)] * 3
    watches.accept_baseline(world.context(), BEN, "chat", reason="the provider told us")
    assert open_alerts(world) == {}
    days(world, 2)
    assert open_alerts(world) == {}


def test_a_better_model_is_told_and_a_person_accepts_it_as_the_new_baseline(
    world: SmallInstallation, alias: Alias
) -> None:
    days(world, 2)
    alias.skilled_like = "better"
    days(world, 2)
    ctx = world.context()
    assert "points better" in open_alerts(world)[AlertKind.DRIFT].title

    with pytest.raises(NotAllowed):
        watches.accept_baseline(ctx, ANN, "chat", reason="cheaper now")
    with pytest.raises(InputError, match="reason"):
        watches.accept_baseline(ctx, BEN, "chat", reason=" ")
    watches.accept_baseline(ctx, BEN, "chat", reason="cheaper now")

    assert open_alerts(world) == {}
    days(world, 3)
    assert status(world).state == "watching"
    assert status(world).comparisons == 2
    assert status(world).baseline.reason == "cheaper now"  # type: ignore[union-attr]
    assert open_alerts(world) == {}
    assert actions(world) == [
        "drift.baseline",
        "drift.found",
        "drift.baseline",
    ]


def test_a_swap_ends_the_watch_and_its_alert(world: SmallInstallation, alias: Alias) -> None:
    days(world, 1)
    alias.skilled_like = "worse"
    days(world, 1)
    proposal = world.decided("sim/better")
    for _ in range(60):
        world.feed()
        world.run_once()
    assert world.get(proposal.id).phase.value == "promoted"

    run_cycle(world)

    assert AlertKind.DRIFT not in open_alerts(world)
    assert status(world).model == "sim/better"
    baselines = [check for check in checks(world) if not check.number]
    assert [check.closed_at is None for check in baselines] == [False, True]


def test_an_outage_is_not_drift(world: SmallInstallation, alias: Alias) -> None:
    days(world, 2)
    alias.broken = True
    for _ in range(6):
        run_cycle(world)

    assert set(open_alerts(world)) == {AlertKind.JOB_FAILED}
    assert "503" in open_alerts(world)[AlertKind.JOB_FAILED].text
    assert checks(world)[-1].state is DriftCheckState.NOT_MEASURED
    alias.broken = False
    world.clock.advance(3601)
    run_cycle(world)
    assert open_alerts(world) == {}
    assert status(world).comparisons == 2


def test_other_data_need_another_baseline(world: SmallInstallation) -> None:
    days(world, 2)
    file = world.suites["colours"].path
    assert file is not None
    file.write_text(file.read_text().replace("Colour number 7", "Colour number seven"))
    days(world, 2)

    assert status(world).comparisons == 1
    assert status(world).baseline.reason == "the suite or its plan changed"  # type: ignore[union-attr]
    assert open_alerts(world) == {}


def test_budget_and_items_bound_a_run_and_too_few_answers_are_no_measurement(
    world: SmallInstallation,
) -> None:
    world.drift["colours"] = replace(POLICY, max_cost_usd=0.00001)
    days(world, 1)

    last = checks(world)[-1]
    with world.store.read() as tx:
        assert EvalRuns(tx).get(last.run).state is RunState.OVER_BUDGET
    assert last.state is DriftCheckState.NOT_MEASURED
    assert "too few" in last.message

    # Only as many items as configured are asked.
    world.drift["colours"] = replace(POLICY, items=20, epochs=2)
    days(world, 2)
    assert [len(check.scores) for check in checks(world)[-2:]] == [20, 20]
    with world.store.read() as tx:
        assert len(EvalRuns(tx).samples(checks(world)[-1].run)) == 40


def test_a_run_by_hand_needs_no_waiting(world: SmallInstallation) -> None:
    ctx = world.context()
    with pytest.raises(NotAllowed):
        watches.start_checks(ctx, VIEWER, "chat")
    (first,) = watches.start_checks(
        ctx,
        ANN,
        "chat",
    )
    (same,) = watches.start_checks(
        ctx,
        ANN,
        "chat",
    )
    assert first == same

    run_cycle(world)
    (second,) = watches.start_checks(
        ctx,
        ANN,
        "chat",
    )
    run_cycle(world)

    assert second.run != first.run
    assert status(world).comparisons == 1


def test_without_a_drift_section_nothing_is_watched(world: SmallInstallation) -> None:
    ctx = world.context()
    monitor.run_once(ctx)
    run = checks(world)[0].run
    world.drift.clear()
    monitor.run_once(ctx)

    assert watches.list_drift_status(ctx) == []
    with world.store.read() as tx:
        assert Drift(tx).open_watches() == []
        assert EvalRuns(tx).get(run).state is RunState.STOPPED
    assert checks(world)[0].state is DriftCheckState.NOT_MEASURED
    with pytest.raises(NotFound, match=r"docs open explanation/drift"):
        watches.start_checks(world.context(), ANN, "chat")


@pytest.mark.req("A7")
def test_of_two_control_processes_each_check_happens_once(
    stored: SmallInstallation,
    database_url: str,
    alias: Alias,
) -> None:
    other = Store(
        database_url,
        secret=SECRET,
        clock=stored.clock,
        signatures=CONTROL,
    )

    def process(store: Store) -> None:
        for _ in range(6):
            monitor.run_once(stored.context(store))

    try:
        for changed in (False, True):
            alias.skilled_like = "worse" if changed else "base"
            with ThreadPoolExecutor(2) as both:
                for done in [both.submit(process, opened) for opened in (stored.store, other)]:
                    done.result()
            eval_queue.run_once(stored.context())
            with ThreadPoolExecutor(2) as both:
                for done in [both.submit(process, opened) for opened in (stored.store, other)]:
                    done.result()
            stored.clock.advance(DAY_S + 1)
    finally:
        other.close()

    assert [check.number for check in checks(stored)] == [0, 1]
    assert open_alerts(stored)[AlertKind.DRIFT].count == 1
    assert actions(stored) == ["drift.baseline", "drift.found"]


@pytest.mark.parametrize("after_commit", [False, True])
def test_wherever_the_control_process_dies_the_next_one_goes_on(
    stored: SmallInstallation,
    alias: Alias,
    *,
    after_commit: bool,
) -> None:
    for at in range(1, 9):
        dying = CrashingStore(stored.store, at=at, after_commit=after_commit)
        try:
            run_cycle(stored, dying)  # type: ignore[arg-type]
        except Crash:
            stored.clock.advance(30)
        run_cycle(stored)
        if at == 4:
            alias.skilled_like = "worse"
        stored.clock.advance(DAY_S)

    assert status(stored).state == "drifted"
    assert open_alerts(stored)[AlertKind.DRIFT].count == 1
    assert actions(stored).count("drift.found") == 1
    for check in checks(stored):
        with stored.store.read() as tx:
            asked = [(s.item, s.epoch) for s in EvalRuns(tx).samples(check.run)]
        assert len(asked) == len(set(asked)) == 30


SECTION = "scorer: exact, drift: {items: 60}}"


@pytest.fixture
def cli(
    tmp_path: Path,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CommandLine]:
    with installed(tmp_path, sqlite_url, monkeypatch) as made:
        watching = FILE.replace("scorer: exact}", SECTION)
        assert SECTION in watching
        (tmp_path / "swapproof.yaml").write_text(watching, encoding="utf-8")
        made.world.drift["colours"] = DriftPolicy(items=60)
        yield made


def measured(cli: CommandLine) -> None:
    for step in (monitor.run_once, eval_queue.run_once, monitor.run_once):
        step(cli.world.context())
    cli.world.clock.advance(1)


def test_a_person_sees_what_changed_and_accepts_it(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = cli.run("drift", "run", "chat")
    assert started.stdout.startswith("run_")
    assert "`swapproof drift status chat` shows the result" in started.stderr
    measured(cli)
    assert "watching  not yet" in cli.text("drift", "status")
    cli.run("drift", "run", "chat")
    measured(cli)
    assert "compared  once" in cli.text("drift", "status", "chat")

    def behind(target: Target, _item: Item) -> ServedModel:
        return ServedModel(f"{target.model}-2027")

    monkeypatch.setitem(SKILL, "base", SKILL["worse"])
    cli.world.served = behind
    cli.run("drift", "run", "chat")
    measured(cli)

    shown = cli.run("drift", "status", "chat")
    assert "state          DRIFTED" in shown.stdout
    assert "compared       2 times" in shown.stdout
    assert "−41.7 points" in shown.stdout
    assert "served         base-2027\nserved before  base\n" in shown.stdout
    assert "`swapproof drift accept chat --reason …`" in shown.stderr
    refused = cli.run("drift", "run", "chat", exits=6).stderr
    assert "suite colours has found drift on route chat" in refused
    told = cli.text("alert", "list")
    assert "the provider of sim/base serves another model: base-2027" in told

    cli.run("drift", "accept", "chat", "--reason", "the provider told us")
    assert "measuring the baseline" in cli.text("drift", "status")
