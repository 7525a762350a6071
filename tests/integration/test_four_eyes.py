from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from harness.canary import machine, operations
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import Alert, AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import (
    Conflict,
    InputError,
    NotAllowed,
    NotFound,
    SignatureInvalid,
)
from harness.frame.people import four_eyes
from harness.frame.people.access import (
    LOCAL_PRINCIPAL,
    OPERATOR,
    Actor,
    Role,
)
from harness.frame.people.records import principal as principals
from harness.gate.online.rollout import MANUAL_SIGNALS, RolloutSignal
from harness.operations import keys
from harness.proposals import approvals, decisions
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Approvals
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN, BEN
from tests.support.control.short_policies import CANARY, POLICY, approved
from tests.support.store.raw_rows import (
    APPROVAL,
    AT,
    PROPOSAL,
    REFUSED,
    Database,
)
from tests.support.store.tampering import insert, owned

pytestmark = pytest.mark.req("F5")


def waiting(world: SmallInstallation, proposer: Actor) -> Proposal:
    world.policy = approved()
    return world.decided(actor=proposer)


def test_spelling_makes_no_second_person(world: SmallInstallation) -> None:
    ops = world.person("Ops", Role.ADMIN)
    for name in ("ops", "Ｏｐｓ", "ops ", " OPS"):
        with pytest.raises(Conflict, match="--principal Ops"):
            world.person(name, Role.APPROVER)
    with pytest.raises(InputError, match="U\\+200B"):
        world.person("op\u200bs", Role.APPROVER)
    with pytest.raises(Conflict, match="local"):
        world.person("Local", Role.APPROVER)

    second = world.person("phone", Role.APPROVER, principal="ＯＰＳ ")
    assert second.principal == ops.principal
    assert second.name == "Ops"
    with pytest.raises(NotFound, match="no principal 'opps'"):
        world.person("laptop", Role.APPROVER, principal="opps")
    made = waiting(world, ops)
    with pytest.raises(NotAllowed, match="another approver"):
        decisions.approve_proposal(world.context(), second, made.id)


def test_nobody_approves_with_a_key_that_he_created(world: SmallInstallation) -> None:
    ann = world.person("ann", Role.ADMIN)
    zoe = world.person("zoe", Role.ADMIN, by=ann)
    kim = world.person("kim", Role.APPROVER, by=zoe)
    ben = world.person("ben", Role.APPROVER)
    made = waiting(world, ann)
    for sham in (zoe, kim):
        with pytest.raises(NotAllowed, match="and took part in creating the key"):
            decisions.approve_proposal(world.context(), sham, made.id)

    decisions.approve_proposal(world.context(), ben, made.id)
    world.run_once()
    assert world.get(made.id).phase is ProposalPhase.CANARY
    for sham in (ann, zoe, kim):
        with pytest.raises(NotAllowed, match="promote"):
            operations.operate(world.context(), sham, "chat", RolloutSignal.PROMOTE, "now")


def test_nobody_becomes_two_people_by_what_is_written_of_him_in_the_database(
    world: SmallInstallation,
) -> None:
    """His name is put out of the way, so that his next key would make a second person."""
    eve = world.person("eve", Role.ADMIN)
    with owned(world.store) as db:
        gone = {"name": "gone", "folded": "gone"}
        db.execute(sa.update(principals).where(principals.c.id == eve.principal).values(gone))

    with pytest.raises(SignatureInvalid, match=f"principal {eve.principal}"):
        world.person("eve", Role.APPROVER)

    with owned(world.store) as db:
        back = {"name": "eve", "folded": "eve"}
        db.execute(sa.update(principals).where(principals.c.id == eve.principal).values(back))
        second = PRINCIPAL | {
            "id": "pr_2",
            "name": "zoe",
            "folded": "zoe",
        }
        insert(db, "principal", second | {"created_at": world.clock.now()})
    with pytest.raises(SignatureInvalid, match="principal"):
        world.person("her other one", Role.APPROVER, principal="zoe")


def in_reach_of(
    world: SmallInstallation,
    signal: RolloutSignal,
    *,
    alone: bool = False,
) -> Actor:
    """A canary of ann's that an approver could move so. Returns ann, an approver too."""
    ends = replace(CANARY, bake_s=60.0) if signal is RolloutSignal.FINISH else CANARY
    world.policy = replace(POLICY, canary=ends, self_approval=alone)
    made = world.decided("sim/better")
    assert made.phase is ProposalPhase.CANARY
    before = {
        RolloutSignal.FINISH: RolloutSignal.PROMOTE,
        RolloutSignal.RESUME: RolloutSignal.PAUSE,
    }.get(signal)
    if before is not None:
        operations.operate(world.context(), BEN, "chat", before, "a drill")
    return replace(BEN, name=ANN.name, principal=ANN.principal)


@pytest.mark.parametrize("signal", sorted(MANUAL_SIGNALS))
def test_a_proposer_holds_or_ends_the_own_canary_and_never_moves_it_on(
    world: SmallInstallation, signal: RolloutSignal
) -> None:
    ann = in_reach_of(world, signal)
    ctx = world.context()
    if signal in (RolloutSignal.PAUSE, RolloutSignal.ABORT):
        operations.operate(ctx, ann, "chat", signal, "a drill")
        return
    with world.store.read() as tx:
        before = machine.find_live(tx, "chat")
    with pytest.raises(NotAllowed, match=f"cannot {signal.value} it: ask another approver"):
        operations.operate(ctx, ann, "chat", signal, "a drill")
    with world.store.read() as tx:
        assert machine.find_live(tx, "chat") == before
    operations.operate(ctx, BEN, "chat", signal, "a drill")


@pytest.mark.parametrize("signal", sorted(MANUAL_SIGNALS))
def test_a_policy_may_say_that_one_person_is_enough_for_each_move(
    world: SmallInstallation, signal: RolloutSignal
) -> None:
    ann = in_reach_of(world, signal, alone=True)
    operations.operate(world.context(), ann, "chat", signal, "a drill")


def test_a_proposer_does_not_acknowledge_the_routers_faults_in_the_own_canary(
    world: SmallInstallation,
) -> None:
    ann = in_reach_of(world, RolloutSignal.ADVANCE)
    ctx = world.context()
    kind = AlertKind.INTERNAL_ERROR
    with world.store.write() as tx:
        about = machine.find_live(tx, "chat").id
        key = f"{kind.value}:{about}"
        now = world.clock.now()
        Alerts(tx).fold([Alert(kind, "route chat", key, "it failed", "a.py:7", now, "w1")])
    with pytest.raises(NotAllowed, match="cannot resume"):
        operations.operate(ctx, ann, "chat", RolloutSignal.RESUME, "nothing to see")
    assert alerts.is_open(ctx, kind, about)
    operations.operate(ctx, BEN, "chat", RolloutSignal.RESUME, "a known bug, mended")
    assert not alerts.is_open(ctx, kind, about)


def test_who_made_the_proposers_key_does_not_approve_what_was_proposed_with_it(
    world: SmallInstallation,
) -> None:
    eve = world.person("eve", Role.ADMIN)
    bot = world.person("bot", Role.PROPOSER, by=eve)
    made = waiting(world, bot)

    with pytest.raises(NotAllowed, match="took part in creating the key"):
        decisions.approve_proposal(world.context(), eve, made.id)


def test_an_admin_does_not_play_two_people_with_keys_that_he_makes_for_them(
    world: SmallInstallation,
) -> None:
    mal = world.person("mal", Role.ADMIN)
    world.person("ann", Role.PROPOSER)
    ben = world.person("ben", Role.APPROVER)
    as_ann = world.person(
        "ann's phone",
        Role.PROPOSER,
        by=mal,
        principal="ann",
    )
    as_ben = world.person(
        "ben's phone",
        Role.APPROVER,
        by=mal,
        principal="ben",
    )
    world.clock.advance(30 * 86_400)
    made = waiting(world, as_ann)

    with pytest.raises(NotAllowed, match="mal took part in creating both keys"):
        decisions.approve_proposal(world.context(), as_ben, made.id)

    decisions.approve_proposal(world.context(), ben, made.id)


def test_who_made_the_keys_of_both_people_is_named_where_they_have_no_others(
    world: SmallInstallation,
) -> None:
    mal = world.person("mal", Role.ADMIN)
    ann = world.person("ann", Role.PROPOSER, by=mal)
    ben = world.person("ben", Role.APPROVER, by=mal)
    world.clock.advance(30 * 86_400)
    made = waiting(world, ann)
    decisions.approve_proposal(world.context(), ben, made.id)

    with world.store.read() as tx:
        (approval,) = Approvals(tx).for_proposal(made.id)
        key_remarks = approvals.list_key_remarks(tx, made, approval)
    assert key_remarks == ["mal took part in creating the proposer's and the approver's keys"]


@pytest.mark.parametrize("days", [0, 29.9])
def test_one_person_who_made_both_keys_within_30_days_is_named_and_the_approval_refused(
    world: SmallInstallation, days: float
) -> None:
    mal = world.person("mal", Role.ADMIN)
    ann = world.person("ann", Role.PROPOSER, by=mal)
    ben = world.person("ben", Role.APPROVER, by=mal)
    world.clock.advance(days * 86_400)
    made = waiting(world, ann)
    with pytest.raises(NotAllowed) as refused:
        decisions.approve_proposal(world.context(), ben, made.id)
    text = str(refused.value)
    assert text.startswith("mal took part in creating both keys within the last 30 days")
    assert f"({ann.key}) and yours ({ben.key})" in text
    assert "`swapproof key create NAME --role approver --principal ben`" in text
    assert "Or wait until " in text
    with world.store.read() as tx:
        assert not Approvals(tx).for_proposal(made.id)

    own = world.person("ben's own", Role.APPROVER, principal="ben")
    decisions.approve_proposal(world.context(), own, made.id)


def test_a_key_that_its_owner_renews_counts_from_the_first_persons_part_in_it(
    world: SmallInstallation,
) -> None:
    """A rotation each month must not end all approvals."""
    mal = world.person("mal", Role.ADMIN)
    ann = world.person("ann", Role.ADMIN, by=mal)
    ben = world.person("ben", Role.ADMIN, by=mal)
    world.clock.advance(31 * 86_400)
    ann = world.person("ann's new", Role.ADMIN, by=ann, principal="ann")
    ben = world.person("ben's new", Role.ADMIN, by=ben, principal="ben")
    made = waiting(world, ann)
    decisions.approve_proposal(world.context(), ben, made.id)


def test_self_approval_also_allows_keys_that_one_person_made(world: SmallInstallation) -> None:
    mal = world.person("mal", Role.ADMIN)
    ann = world.person("ann", Role.PROPOSER, by=mal)
    ben = world.person("ben", Role.APPROVER, by=mal)
    world.policy = replace(approved(), self_approval=True)
    made = world.decided(actor=ann)
    decisions.approve_proposal(world.context(), ben, made.id)
    (shown,) = approvals.list_approvals(world.context(), made.id)
    assert "mal took part in creating the proposer's and the approver's keys" in shown.remarks


def test_a_stored_approval_stays_valid_whoever_made_its_keys(
    world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an earlier version, which only remarked on it, stored it."""
    mal = world.person("mal", Role.ADMIN)
    ann = world.person("ann", Role.PROPOSER, by=mal)
    ben = world.person("ben", Role.APPROVER, by=mal)
    made = waiting(world, ann)
    with monkeypatch.context() as earlier:
        earlier.setattr(four_eyes, "SEPARATE_AFTER", timedelta())
        decisions.approve_proposal(world.context(), ben, made.id)
    world.run_once()
    assert world.get(made.id).phase is ProposalPhase.CANARY
    (shown,) = approvals.list_approvals(world.context(), made.id)
    assert "mal took part in creating the proposer's and the approver's keys" in shown.remarks
    with pytest.raises(NotAllowed, match="mal took part in creating both keys within"):
        operations.operate(world.context(), ben, "chat", RolloutSignal.PROMOTE, "now")


def test_a_new_approvers_key_is_shown_and_an_old_one_is_not(world: SmallInstallation) -> None:
    ann = world.person("ann", Role.PROPOSER)
    old = world.person("ben", Role.APPROVER)
    world.clock.advance(timedelta(days=8).total_seconds())
    new = world.person("kim", Role.APPROVER)
    world.clock.advance(180)

    for approver, warnings in (
        (old, ()),
        (new, ("approved with a key created",)),
    ):
        made = waiting(world, ann)
        decisions.approve_proposal(world.context(), approver, made.id)
        (shown,) = approvals.list_approvals(world.context(), made.id)
        assert (shown.principal, shown.key) == (
            approver.principal,
            approver.key,
        )
        assert len(shown.remarks) == len(warnings)
        for remark, start in zip(shown.remarks, warnings, strict=True):
            assert remark.startswith(start)
            assert remark.endswith("before by local")
        world.run_once()
        operations.operate(world.context(), old, "chat", RolloutSignal.ABORT, "a drill")


def test_the_operator_who_created_the_proposers_key_is_named_when_he_approves(
    world: SmallInstallation,
) -> None:
    made = waiting(world, world.person("ann", Role.PROPOSER))
    decisions.approve_proposal(world.context(), OPERATOR, made.id)
    (shown,) = approvals.list_approvals(world.context(), made.id)
    assert (shown.principal, shown.key) == (LOCAL_PRINCIPAL.id, None)
    (remark,) = shown.remarks
    assert "local, who approved it, took part in creating that key" in remark


def test_a_revoked_key_acts_no_more(world: SmallInstallation) -> None:
    ann = world.person("ann", Role.PROPOSER)
    assert keys.refresh_actor(world.store, ann) == ann
    keys.revoke_key(world.context(), OPERATOR, ann.key or "")
    with pytest.raises(NotAllowed, match="revoked"):
        keys.refresh_actor(world.store, ann)


def test_the_database_itself_refuses_one_principal_on_both_sides(database: Database) -> None:
    database.insert(
        "principal",
        {
            **PRINCIPAL,
            "id": "pr_ada",
            "name": "ada",
            "folded": "ada",
        },
    )
    made = {
        "id": "p_2",
        "route": "c",
        "proposer_principal": "pr_ada",
    }
    database.insert("proposal", PROPOSAL | made)
    key = {
        **KEY,
        "id": "k_ada",
        "principal": "pr_ada",
    }
    database.insert("api_key", key)
    whose = {
        "id": "a_ada",
        "proposal": "p_2",
        "verdict": None,
        "principal": "pr_ada",
    }
    by_ada = APPROVAL | whose

    for refused in (
        by_ada | {"name": "somebody"},
        by_ada | {"key": "k_ada", "name": "x"},
    ):
        with pytest.raises(REFUSED, match="four_eyes"):
            database.insert("approval", refused)
    with pytest.raises(REFUSED, match="another principal"):
        database.insert(
            "approval",
            by_ada
            | {
                "principal": "pr_b",
                "name": "b",
                "key": "k_ada",
            },
        )
    for change in ("proposer_principal = 'pr_b'", "proposer_key = 'k_ada'"):
        with pytest.raises(REFUSED, match="registered"):
            database.run(f"UPDATE proposal SET {change}, version = 2 WHERE id = 'p_2'")  # noqa: S608
    for change in (
        "principal = 'local'",
        "created_by = 'x'",
        "created_with = 'x'",
    ):
        with pytest.raises(REFUSED, match="registered"):
            database.run(f"UPDATE api_key SET {change}")  # noqa: S608
    with pytest.raises(REFUSED, match="key_owner"):
        database.insert(
            "api_key",
            key
            | {
                "id": "k_2",
                "hash": "2",
                "principal": None,
            },
        )
    with pytest.raises(REFUSED, match="never deleted"):
        database.run("DELETE FROM principal WHERE id = 'local'")
    for change in ("kind = 'person'", "name = 'ops'", "folded = 'ops'"):
        with pytest.raises(REFUSED, match="registered"):
            database.run(f"UPDATE principal SET {change} WHERE id = 'local'")  # noqa: S608


PRINCIPAL = {"kind": "person", "created_at": AT}
KEY = {
    "name": "ada",
    "hash": "1",
    "hint": "1",
    "role": 4,
    "routes": "[]",
    "created_at": AT,
}
