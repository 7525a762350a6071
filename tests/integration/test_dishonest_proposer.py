from dataclasses import replace
from typing import Any

import pytest

from harness.frame.errors import InputError, NotAllowed, NotFound, RouteBusy
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.gate.policy import Policy
from harness.gate.suite_plan import Claim, SuiteRole
from harness.operations.context import Context
from harness.proposals import decisions, review, submission
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.route_settings import RouteSuite
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN, BEN
from tests.support.control.short_policies import POLICY
from tests.support.site.management_api import Door
from tests.support.store.raw_rows import REFUSED, Database

pytestmark = pytest.mark.req("A7", "F2", "F4")

EVE = Actor(
    "eve", Role.ADMIN, "pr_eve"
)  # may do all that a role lets her do, and proposes herself
REASON = "cheaper"
# A margin of .9: with it a model that is worse on every second item passes.
LAX = replace(
    POLICY,
    name="lax",
    gate=replace(POLICY.gate, claim=Claim.NON_INFERIOR, margin=0.9),
    self_approval=True,
)


def context(world: SmallInstallation, *policies: Policy) -> Context:
    ctx = world.context()
    return replace(
        ctx,
        policies={
            **ctx.policies,
            **{policy.name: policy for policy in policies},
        },
    )


def decided(
    world: SmallInstallation,
    ctx: Context,
    candidate: str = "sim/better",
    actor: Actor = EVE,
) -> Proposal:
    proposal = world.propose(candidate, actor, ctx=ctx)
    for _ in range(10):
        world.run_once(ctx)
        if submission.get_proposal(ctx, proposal.id).verdict:
            break
    for _ in range(2):
        world.run_once(ctx)
    return submission.get_proposal(ctx, proposal.id)


def canary_of(world: SmallInstallation, route: str = "chat") -> object:
    with world.store.read() as tx:
        policy = Routing(tx).route(route)
    assert policy is not None
    return policy.canary


def gate(**changes: Any) -> Policy:
    return replace(POLICY, gate=replace(POLICY.gate, **changes))


@pytest.mark.spine
@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (
            {"margin": 0.9, "claim": Claim.NON_INFERIOR},
            "a margin of 0.9, above 0.05",
        ),
        ({"margin": 0.06}, "a margin of 0.06, above 0.05"),
        (
            {"claim": Claim.CHEAPER, "min_saving": 0.001},
            "a saving of 0.001, below 0.1",
        ),
    ],
)
def test_a_wish_beyond_the_policy_is_refused(
    plain_world: SmallInstallation,
    wish: dict[str, Any],
    why: str,
) -> None:
    with pytest.raises(NotAllowed, match=why):
        plain_world.propose("sim/good", EVE, **wish)


def test_a_claim_that_the_policy_does_not_name_is_refused(
    plain_world: SmallInstallation,
) -> None:
    plain_world.policy = gate(claim=Claim.SUPERIOR, claims=(Claim.SUPERIOR,))

    with pytest.raises(
        NotAllowed,
        match="the claim non_inferior, but the route allows only superior",
    ):
        plain_world.propose("sim/good", EVE, claim=Claim.NON_INFERIOR)


@pytest.mark.parametrize(
    "rules",
    [
        {"alpha": 0.5},
        {"n_max": 10},
        {"epochs": 3},
        {"margin": 0.5},
    ],
    ids=str,
)
def test_what_was_registered_under_other_rules_is_never_let_in(
    plain_world: SmallInstallation, rules: dict[str, Any]
) -> None:
    """Whoever has a configuration of his own registers by it; the control plane decides."""
    plain_world.policy = gate(**rules)
    proposal = plain_world.propose(actor=EVE)
    plain_world.policy = POLICY

    found = plain_world.until_decided(proposal.id)
    for _ in range(3):
        plain_world.run_once()
        found = plain_world.get(proposal.id)

    assert found.phase is ProposalPhase.REJECTED
    assert "registered under other rules than the route has" in found.closed_because
    assert canary_of(plain_world) is None


def test_a_route_keeps_its_policy_while_a_proposal_is_open(
    plain_world: SmallInstallation,
) -> None:
    ctx = context(plain_world, LAX)
    plain_world.propose("sim/good", ctx=ctx)

    with pytest.raises(RouteBusy, match="keeps its policy"):
        routes.change_settings(ctx, SYSTEM, "chat", lambda s: replace(s, policy="lax"))


def test_a_route_whose_policy_is_gone_takes_no_proposal(plain_world: SmallInstallation) -> None:
    ctx = context(plain_world, LAX)
    without = replace(ctx, policies={"lax": LAX})

    with pytest.raises(NotFound, match="no policy 'default'"):
        plain_world.propose(ctx=without)


@pytest.mark.req("F6")
@pytest.mark.parametrize("changed", ["labels", "version", "scorer"])
def test_another_suite_content_waits_for_another_person(
    plain_world: SmallInstallation, changed: str
) -> None:
    colours = plain_world.suites["colours"]
    assert colours.path is not None
    if changed == "labels":
        text = colours.path.read_text().replace('"target": "c1"', '"target": "wrong"')
        colours.path.write_text(text)
    elif changed == "version":
        plain_world.suites["colours"] = replace(colours, version="2")
    else:
        plain_world.suites["colours"] = replace(colours, scorer_options={"ignore_case": True})
    plain_world.policy = replace(POLICY, self_approval=True)
    ctx = plain_world.context()

    proposal = decided(plain_world, ctx)

    assert proposal.phase is ProposalPhase.AWAITING_APPROVAL, proposal.closed_because
    (said,) = proposal.widened["suite colours"]["changed"]
    assert said.startswith({"labels": "data", "scorer": "scorer"}.get(changed, "version"))
    with pytest.raises(NotAllowed):
        decisions.approve_proposal(ctx, EVE, proposal.id)
    decisions.approve_proposal(ctx, BEN, proposal.id)
    plain_world.run_once(ctx)
    assert plain_world.get(proposal.id).phase is ProposalPhase.CANARY
    # What another person let in is the route's from then on.
    assert plain_world.preview("sim/good", EVE).widened == {}


@pytest.mark.req("F6")
def test_an_admin_who_names_a_suite_anew_accepts_what_it_holds(
    plain_world: SmallInstallation,
) -> None:
    plain_world.suites["colours"] = replace(plain_world.suites["colours"], version="2")
    ctx = plain_world.context()
    assert set(plain_world.preview().widened) == {"suite colours"}

    routes.change_settings(ctx, SYSTEM, "chat", lambda s: replace(s, total_timeout_s=60.0))
    assert set(plain_world.preview().widened) == {"suite colours"}

    suites = (RouteSuite("colours"),)
    routes.change_settings(ctx, SYSTEM, "chat", lambda s: replace(s, suites=suites))
    assert plain_world.preview(actor=EVE).widened == {}


def named(
    ctx: Context,
    actor: Actor,
    *suites: RouteSuite,
) -> None:
    routes.change_settings(ctx, actor, "chat", lambda s: replace(s, suites=suites))


@pytest.mark.req("F6")
def test_an_admin_who_proposes_does_not_accept_the_own_suite_by_naming_it_anew(
    world: SmallInstallation,
) -> None:
    world.suites["colours"] = replace(world.suites["colours"], version="2")
    ctx = world.context()

    named(ctx, EVE, RouteSuite("colours"))
    named(ctx, EVE, RouteSuite("colours", SuiteRole.PRIMARY, 2.0))
    routes.change_settings(ctx, SYSTEM, "chat", lambda s: replace(s, total_timeout_s=60.0))
    assert world.preview(actor=ANN).widened == {}
    proposal = decided(world, ctx)

    assert set(proposal.widened) == {"suite colours"}
    assert proposal.phase is ProposalPhase.AWAITING_APPROVAL
    with pytest.raises(NotAllowed):
        decisions.approve_proposal(ctx, EVE, proposal.id)
    decisions.approve_proposal(ctx, BEN, proposal.id)
    world.run_once(ctx)
    assert world.get(proposal.id).phase is ProposalPhase.CANARY
    assert world.preview(actor=EVE).widened == {}


@pytest.mark.req("F6")
@pytest.mark.parametrize(
    ("suites", "widened"),
    [
        ((RouteSuite("easy"),), {"suite colours", "suite easy"}),
        ((RouteSuite("colours"), RouteSuite("easy")), {"suite easy"}),
        (
            (RouteSuite("colours", SuiteRole.GUARD), RouteSuite("easy")),
            {"suite colours", "suite easy"},
        ),
        (
            (RouteSuite("colours"), RouteSuite("easy", SuiteRole.REQUIRED)),
            set(),
        ),
    ],
)
def test_an_admin_who_proposes_does_not_take_another_suite_for_the_own_proposal(
    plain_world: SmallInstallation,
    suites: tuple[RouteSuite, ...],
    widened: set[str],
) -> None:
    colours = plain_world.suites["colours"]
    easy = plain_world.folder / "easy.jsonl"
    text = (plain_world.folder / "colours.jsonl").read_text(encoding="utf-8")
    # Primary suites with the same items are refused.
    easy.write_text(text.replace("Colour", "Easy"), encoding="utf-8")
    plain_world.suites["easy"] = replace(colours, name="easy", path=easy)
    ctx = plain_world.context()
    named(ctx, EVE, *suites)

    assert set(plain_world.preview(actor=EVE).widened) == widened
    assert plain_world.preview(actor=ANN).widened == {}


@pytest.mark.req("F6")
def test_a_second_key_of_the_proposers_making_accepts_no_suite(
    world: SmallInstallation,
) -> None:
    eve = world.person("eve")
    sham = world.person("sham")
    world.suites["colours"] = replace(world.suites["colours"], version="2")
    ctx = world.context()
    named(ctx, sham, RouteSuite("colours"))
    assert world.preview(actor=eve).widened == {}

    laptop = world.person("laptop", by=eve, principal="sham")
    assert laptop.principal == sham.principal
    assert set(world.preview(actor=eve).widened) == {"suite colours"}


@pytest.mark.req("F6")
def test_where_the_policy_says_that_one_person_is_enough_he_names_the_suites(
    plain_world: SmallInstallation,
) -> None:
    plain_world.policy = replace(POLICY, self_approval=True)
    plain_world.suites["colours"] = replace(plain_world.suites["colours"], version="2")
    ctx = plain_world.context()
    assert set(plain_world.preview(actor=EVE).widened) == {"suite colours"}
    named(ctx, EVE, RouteSuite("colours"))
    assert plain_world.preview(actor=EVE).widened == {}


@pytest.mark.req("C4")
def test_over_rest_a_proposers_key_chooses_nothing_beyond_the_policy(
    plain_world: SmallInstallation,
) -> None:
    door = Door(plain_world)
    wish = {
        "route": "chat",
        "candidate": "sim/worse",
        "reason": REASON,
        "margin": 0.9,
    }
    wish |= {"claim": "non_inferior"}

    for path in ("/proposals/preview", "/proposals"):
        refused = door.send(
            "POST",
            path,
            role="proposer",
            json=wish,
        )
        assert refused.status_code == 403
        assert "a margin of 0.9, above 0.05" in refused.text
    # What is no field of a proposal is refused, so that nothing else can be chosen.
    for more in (
        "alpha",
        "n_max",
        "epochs",
        "self_approval",
        "policy",
        "suites",
        "weights",
    ):
        answer = door.send(
            "POST",
            "/proposals",
            role="proposer",
            json={**wish, more: 1},
        )
        assert answer.status_code == 422, more


@pytest.mark.req("F6")
def test_an_approver_sees_what_changed_in_90_days_and_by_whom(
    plain_world: SmallInstallation,
) -> None:
    ctx = context(plain_world, replace(POLICY, name="other"))
    decided(plain_world, ctx, "sim/equal", ANN)
    plain_world.clock.advance(100 * 86_400)
    routes.change_settings(ctx, SYSTEM, "chat", lambda s: replace(s, total_timeout_s=60.0))
    stricter = replace(POLICY, name="default", gate=replace(POLICY.gate, alpha=0.01))
    plain_world.policy = stricter
    plain_world.suites["colours"] = replace(plain_world.suites["colours"], version="2")
    ctx = plain_world.context()
    decided(plain_world, ctx, "sim/equal")
    proposal = plain_world.propose("sim/good")

    proposal_review = review.review_proposal(ctx, proposal.id)

    assert proposal_review.risk.number == 2
    assert proposal_review.widened == [
        (
            "suite colours: differs from the suite accepted for this route "
            "(version, 1 then and 2 now)"
        )
    ]
    settings, *proposed = sorted(proposal_review.changes, key=lambda change: change.at)
    assert (settings.by, settings.what) == (SYSTEM.name, "settings")
    assert settings.text == "timeout: 120 s → 60 s"
    assert {(change.what, change.text, change.by.split()[0]) for change in proposed} == {
        ("policy", "gate.alpha: 0.05 → 0.01", "eve"),
        ("suite", "colours: version, 1 then and 2 now", "eve"),
    }


def test_the_database_lets_nothing_widened_in_without_another_person(
    world: SmallInstallation, database_url: str
) -> None:
    world.suites["colours"] = replace(world.suites["colours"], version="2")
    ctx = world.context()
    proposal = decided(world, ctx)
    raw = Database(database_url)

    with (
        pytest.raises(InputError, match="four_eyes"),
        world.store.write() as tx,
    ):
        Proposals(tx).save(replace(proposal, phase=ProposalPhase.CANARY))
    with (
        pytest.raises(InputError, match="registered fields cannot change"),
        world.store.write() as tx,
    ):
        Proposals(tx).save(replace(proposal, widened={}))
    for change in (
        "phase = 'canary'",
        "widened = '{}'",
        "self_approval = true",
    ):
        with pytest.raises(REFUSED):
            raw.run(f"UPDATE proposal SET version = version + 1, {change}")  # noqa: S608
    raw.engine.dispose()
