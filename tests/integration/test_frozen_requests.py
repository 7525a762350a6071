"""A person's request freezes in the middle, between two of its units of work, and another
control plane leads and answers another person meanwhile: the request that comes back is refused
by what it finds, or the other one was. No request is fenced by a leader's term.

A control process that leads freezes in the middle of a job, another one leads and runs the
same job, and the first one goes on: nothing happens twice.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, cast

import pytest
from _pytest.mark import ParameterSet

from harness.app.store.store import Store
from harness.canary import operations
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import StaleWrite, SwapproofError
from harness.frame.people.access import Actor
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.rollout import RolloutSignal
from harness.operations import alert_delivery, control_jobs
from harness.operations.context import Context
from harness.proposals import decisions, submission
from harness.proposals.submission import ProposalRequest
from harness.providers.records import Targets
from harness.routing.control import routes
from harness.routing.proposal import ProposalPhase
from harness.routing.records.runs import EvalRuns
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.short_policies import approved
from tests.support.sampling import sampled
from tests.support.store.interrupted_store import InterruptedStore

pytestmark = [pytest.mark.both_databases, pytest.mark.req("F1", "G6")]

CY = replace(BEN, name="cy", principal="pr_cy")
Ask = Callable[[Context, Actor, str], object]


def to_be_proposed(_: SmallInstallation) -> str:
    return ""


def waiting(world: SmallInstallation) -> str:
    world.policy = approved()
    proposal = world.propose("sim/better").id
    assert world.until_decided(proposal).phase is ProposalPhase.AWAITING_APPROVAL
    return proposal


def in_canary(world: SmallInstallation) -> str:
    return world.in_canary().id


def promoted_twice(world: SmallInstallation) -> str:
    """The route's version, as a person saw it."""
    for candidate in ("sim/good", "sim/better"):
        world.promoted(candidate)
    return str(routes.load_table(world.context()).routes["chat"].version)


def signal(which: RolloutSignal) -> Ask:
    return lambda ctx, actor, _: operations.operate(ctx, actor, "chat", which, "a reason")


def propose(
    ctx: Context,
    actor: Actor,
    _: str,
) -> object:
    return submission.create_proposal(ctx, actor, ProposalRequest("chat", "sim/good"))


def roll_back(
    ctx: Context,
    actor: Actor,
    version: str,
) -> object:
    return operations.roll_back(
        ctx,
        actor,
        "chat",
        reason="complaints",
        expected_version=int(version),
    )


def refuse(
    ctx: Context,
    actor: Actor,
    proposal: str,
) -> object:
    return decisions.refuse_proposal(ctx, actor, proposal, "no")


class Case(NamedTuple):
    """prepare: what there is, and its name. units: of work that the request has. actions: the
    audit log's words for what either of the two does.
    """

    prepare: Callable[[SmallInstallation], str]
    request: Ask
    rival: Ask
    actions: frozenset[str]
    units: int = 1


approve = decisions.approve_proposal
abort = signal(RolloutSignal.ABORT)
pause = signal(RolloutSignal.PAUSE)
CASES = {
    "propose": Case(to_be_proposed, propose, propose, frozenset({"proposal.create"}), 3),
    "approve": Case(waiting, approve, approve, frozenset({"proposal.approve"})),
    "approve and refuse": Case(
        waiting,
        approve,
        refuse,
        frozenset({"proposal.approve", "proposal.refused"}),
    ),
    "abort": Case(in_canary, abort, abort, frozenset({"canary.abort"})),
    "pause": Case(in_canary, pause, pause, frozenset({"canary.pause"})),
    "roll back": Case(
        promoted_twice,
        roll_back,
        roll_back,
        frozenset({"route.rollback"}),
        3,
    ),
}
# `make test-all` has these; `make verify` the others as well.
SHORT = {("approve", 1), ("propose", 2)}


def cases() -> list[ParameterSet]:
    return [
        pytest.param(
            case,
            unit,
            id=f"{name}-{unit}",
            marks=[] if (name, unit) in SHORT else [pytest.mark.verify],
        )
        for name, case in CASES.items()
        for unit in range(1, case.units + 1)
    ]


def refusal(
    ask: Ask,
    ctx: Context,
    actor: Actor,
    subject: str,
) -> SwapproofError | None:
    try:
        ask(ctx, actor, subject)
    except SwapproofError as error:
        return error
    return None


@pytest.mark.parametrize(("case", "unit"), cases())
def test_a_request_that_freezes_over_a_change_of_the_leader_has_one_effect_with_its_rival(
    world: SmallInstallation,
    elsewhere: Store,
    case: Case,
    unit: int,
) -> None:
    subject = case.prepare(world)
    here = world.store
    assert isinstance(here, Store)
    assert here.try_lead("the first")
    others: list[SwapproofError | None] = []

    def meanwhile() -> None:
        here._leadership.resign()
        assert elsewhere.try_lead("the second")
        others.append(refusal(case.rival, world.context(elsewhere), CY, subject))

    with here.read() as tx:
        before = len([*AuditLog(tx).all()])
    frozen = InterruptedStore(here, at=unit, act=meanwhile)
    own = refusal(case.request, world.context(cast("Store", frozen)), BEN, subject)
    [other] = others

    assert (own is None) != (other is None), (own, other)
    assert frozen.units <= case.units
    with here.read() as tx:
        after = [event.action for event in AuditLog(tx).all()][before:]
        assert len([action for action in after if action in case.actions]) == 1
        assert AuditLog(tx).first_break() is None


@pytest.mark.verify
def test_of_two_who_roll_back_at_once_one_is_refused_also_without_a_version(
    world: SmallInstallation, elsewhere: Store
) -> None:
    promoted_twice(world)
    rival = world.context(elsewhere)
    frozen = InterruptedStore(
        world.store,
        at=2,
        act=lambda: operations.roll_back(rival, CY, "chat", reason="complaints"),
    )
    with pytest.raises(StaleWrite, match="check it again"):
        operations.roll_back(
            world.context(cast("Store", frozen)),
            BEN,
            "chat",
            reason="complaints",
        )
    incumbent = routes.load_table(world.context()).routes["chat"].incumbent
    with world.store.read() as tx:
        assert Targets(tx).all()[incumbent].model == "good"


@pytest.mark.parametrize("unit", sampled(range(1, 9), (3, 7)))
def test_an_alert_is_sent_once_to_each_sink(
    world: SmallInstallation,
    elsewhere: Store,
    unit: int,
) -> None:
    with world.store.write() as tx:
        alerts.raise_alert(
            tx,
            AlertKind.JOB_FAILED,
            "a job",
            subject="a job",
            title="it failed",
            text="x",
        )
    frozen = InterruptedStore(
        world.store,
        at=unit,
        act=lambda: alert_delivery.run_once(world.context(elsewhere)),
    )

    with suppress(SwapproofError):
        alert_delivery.run_once(world.context(cast("Store", frozen)))
    alert_delivery.run_once(world.context())

    assert [len(world.sinks.kept[sink]) for sink in ("chat", "mail")] == [1, 1]


@pytest.mark.parametrize("unit", sampled(range(1, 6), (1, 5)))
def test_a_scheduled_eval_is_queued_once(
    world: SmallInstallation,
    elsewhere: Store,
    unit: int,
) -> None:
    def evaluate(store: Store) -> None:
        control_jobs.evaluate_incumbents(
            world.context(store), world.clock.now(), "schedule", suite="colours"
        )

    frozen = InterruptedStore(world.store, at=unit, act=lambda: evaluate(elsewhere))

    evaluate(cast("Store", frozen))

    with world.store.read() as tx:
        assert len(EvalRuns(tx).list()) == 1


@pytest.mark.parametrize("unit", sampled(range(1, 16), (4,)))
def test_a_swap_whose_every_turn_freezes_goes_each_step_once(
    world: SmallInstallation,
    elsewhere: Store,
    unit: int,
) -> None:
    proposal = world.propose("sim/better").id
    rival = world.context(elsewhere)
    for _ in range(60):
        frozen = InterruptedStore(
            world.store, at=unit, act=lambda: control_jobs.reconcile(rival)
        )
        ctx = replace(world.context(), store=cast("Store", frozen))
        world.run_once(ctx)
        world.feed()
        if not world.get(proposal).open:
            break

    assert world.get(proposal).phase is ProposalPhase.PROMOTED
    with world.store.read() as tx:
        events = [*AuditLog(tx).all()]
        runs = EvalRuns(tx).list()
        assert AuditLog(tx).first_break() is None
    seen = Counter(event.action for event in events)
    once = {action for action in seen if action.startswith("proposal.")} | {"canary.promote"}
    assert {action: seen[action] for action in once} == dict.fromkeys(once, 1)
    assert len(runs) == len({(run.suite, run.target) for run in runs})
    assert world.store.signature_faults() == []
