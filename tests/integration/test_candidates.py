from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from evals.suites.items import Item
from harness.app.store.store import Store
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import InputError
from harness.frame.people.access import SYSTEM
from harness.frame.signing.audit_log import AuditLog
from harness.gate.budget import false_pass_risk
from harness.proposals import decisions
from harness.proposals.candidates import (
    candidate_rounds,
    candidates,
    leaderboard,
)
from harness.proposals.candidates.leaderboard import Standing
from harness.proposals.candidates.setbacks import find_setbacks
from harness.proposals.registration import route_risk
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.records import DiscoveredModels, Providers, Targets
from harness.providers.registry import targets
from harness.providers.target import Price, Target
from harness.routing.candidate_schedule import (
    QUARTER_ALPHA,
    CandidateRound,
    CandidateSchedule,
    OnBetter,
    Preference,
    parse_patterns,
    round_alpha,
)
from harness.routing.control import routes
from harness.routing.proposal import (
    Proposal,
    ProposalEvent,
    ProposalPhase,
    apply_event,
)
from harness.routing.records.proposals import CandidateRounds, Proposals
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.crashing_store import Crash, CrashingStore
from tests.support.control.people import ANN
from tests.support.control.short_policies import approved

WEEKLY = CandidateSchedule(("sim/*",), "0 3 * * 1", 50.0)
MONDAY = datetime(2026, 1, 5, 3, tzinfo=UTC)
RIGHT = {
    "base": 25,
    "good": 50,
    "better": 60,
    "worse": 5,
    "equal": 25,
    "new": 60,
}


def skilled(
    target: Target,
    item: Item,
    _epoch: int,
) -> str:
    number = int(item.id.rpartition("-")[2])
    return str(item.target) if number * 7 % 60 < RIGHT[target.model] else "wrong"


def schedule(world: SmallInstallation, plan: CandidateSchedule) -> None:
    routes.change_settings(
        world.context(),
        SYSTEM,
        "chat",
        lambda before: replace(before, candidates=plan),
    )
    run_schedule(world)


def list_models(world: SmallInstallation, *names: str) -> None:
    with world.store.write() as tx:
        source = Providers(tx).all()["sim"].api_base
        found_at = world.clock.now()
        models = [DiscoveredModel("sim", name, source, found_at) for name in names]
        DiscoveredModels(tx).replace("sim", models)


def set_prices(world: SmallInstallation, **prices: Price | None) -> None:
    with world.store.read() as tx:
        provider = Providers(tx).all()["sim"]
    known = {model: usd for model, usd in {**provider.prices, **prices}.items() if usd}
    targets.put_provider(world.context(), SYSTEM, replace(provider, prices=known))


def run_schedule(world: SmallInstallation) -> list[str]:
    return candidate_rounds.run_once(world.context())


def wait_until(world: SmallInstallation, at: datetime) -> None:
    world.clock.advance((at - world.clock.now()).total_seconds())


def rounds(world: SmallInstallation) -> list[CandidateRound]:
    with world.store.read() as tx:
        return list(CandidateRounds(tx).newest("chat", 10))


def proposals(world: SmallInstallation) -> dict[str, Proposal]:
    with world.store.read() as tx:
        names = {id_: target.model for id_, target in Targets(tx).all().items()}
        return {names[p.candidate]: p for p in Proposals(tx).list(route="chat")}


def run_until_decided(world: SmallInstallation) -> dict[str, Proposal]:
    for _ in range(12):
        world.run_once()
        if all(p.phase is not ProposalPhase.EVALUATING for p in proposals(world).values()):
            break
    return proposals(world)


@pytest.mark.req("A3", "F4")
@pytest.mark.both_databases
def test_a_round_measures_every_listed_model_and_proposes_the_best(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    list_models(world, "base", "good", "better", "worse")
    schedule(world, WEEKLY)
    assert not proposals(world)  # the time has not come

    wait_until(world, MONDAY)
    run_schedule(world)
    made = run_until_decided(world)

    assert set(made) == {"good", "better", "worse"}
    assert made["better"].phase is ProposalPhase.AWAITING_APPROVAL
    assert made["better"].proposer == SYSTEM.name
    assert {made[name].phase for name in ("good", "worse")} == {ProposalPhase.REJECTED}
    assert len({p.runs["colours"].incumbent for p in made.values()}) == 1


@pytest.mark.req("A3")
def test_nothing_is_measured_twice_while_suite_incumbent_and_claim_stay(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    list_models(world, "base", "equal")
    schedule(world, WEEKLY)
    wait_until(world, MONDAY)
    run_schedule(world)
    run_until_decided(world)

    wait_until(world, MONDAY + timedelta(days=7))
    run_schedule(world)
    assert len(proposals(world)) == 1
    assert [len(one.proposals) for one in rounds(world)] == [0, 1, 0]

    ctx = world.context()
    cheaper = replace(WEEKLY, prefer=Preference.CHEAPER)
    again = candidates.plan_round(ctx, world.route(), cheaper)
    assert [one.name for one in again.measured] == ["sim/equal"]  # for another claim

    list_models(world, "base", "equal", "better")
    wait_until(world, MONDAY + timedelta(days=14))
    run_schedule(world)
    assert set(proposals(world)) == {"equal", "better"}


@pytest.mark.req("A3", "F4")
@pytest.mark.verify
def test_all_rounds_of_a_quarter_spend_less_than_its_alpha(world: SmallInstallation) -> None:
    world.script = skilled
    names = [f"new-{n}" for n in range(26)]
    RIGHT.update(dict.fromkeys(names, 25))
    set_prices(world, **dict.fromkeys(["base", *names], Price(1.0, 2.0)))
    list_models(world, "base")
    schedule(world, WEEKLY)
    for week in range(13):
        list_models(world, "base", *names[: 2 * week + 2])
        wait_until(world, MONDAY + timedelta(days=7 * week))
        run_schedule(world)
        run_until_decided(world)

    made = proposals(world)
    assert len(made) == 26
    assert 0.0 < sum(false_pass_risk(p.plans) for p in made.values()) < QUARTER_ALPHA
    assert all(p.phase is ProposalPhase.REJECTED for p in made.values())


@pytest.mark.req("A3")
def test_a_new_cron_counts_from_the_moment_when_it_was_set(world: SmallInstallation) -> None:
    world.script = skilled
    list_models(world, "base", "good")
    schedule(world, WEEKLY)
    world.clock.advance(7_170)
    often = replace(WEEKLY, every="*/2 * * * *")
    schedule(world, often)
    assert not proposals(world)  # times before it are not made up for
    schedule(world, replace(often, budget_usd=49.0))
    due = candidate_rounds.find_next_round(world.context(), world.route())
    assert due is not None
    assert due.minute % 2 == due.second == 0
    assert due > world.clock.now()

    wait_until(world, due)
    run_schedule(world)
    assert set(proposals(world)) == {"good"}


@pytest.mark.req("A3")
def test_what_does_not_fit_into_the_budget_waits_for_the_next_round(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    set_prices(world, good=Price(1.0, 2.0), better=Price(1.4, 2.8))
    world.propose("sim/equal")
    run_until_decided(world)  # now the tokens of an answer are known
    list_models(world, "base", "good", "better")
    schedule(world, WEEKLY)
    both = candidates.plan_round(world.context(), world.route(), WEEKLY)
    assert [one.name for one in both.measured] == ["sim/good", "sim/better"]
    tight = replace(WEEKLY, budget_usd=(both.cost_usd or 0.0) * 0.6)
    schedule(world, tight)

    wait_until(world, MONDAY)
    run_schedule(world)
    assert rounds(world)[0].waiting == ("sim/better",)
    assert (rounds(world)[0].cost_usd or 0.0) <= tight.budget_usd
    run_until_decided(world)
    with world.store.read() as tx:
        waits = next(p for p in Proposals(tx).open())
    decisions.cancel_proposal(world.context(), SYSTEM, waits.id)

    schedule(world, replace(WEEKLY, budget_usd=both.cost_usd or 0.0))
    wait_until(world, MONDAY + timedelta(days=7))
    run_schedule(world)
    assert set(proposals(world)) == {"equal", "good", "better"}


@pytest.mark.req("A3", "F4")
def test_beside_a_candidate_of_ones_own_machine_the_incumbents_answers_are_paid(
    world: SmallInstallation,
) -> None:
    set_prices(world, better=None)
    list_models(world, "base", "good", "better")
    ctx = world.context()
    plan = candidates.plan_round(ctx, world.route(), WEEKLY)
    assert [one.name for one in plan.measured] == ["sim/better", "sim/good"]
    better, good = plan.measured
    assert 0.0 < better.shared_usd == better.cost_usd == pytest.approx(good.shared_usd)
    assert plan.cost_usd == pytest.approx(good.cost_usd)
    policy = ctx.policy("default")
    capped = replace(policy, gate=replace(policy.gate, max_cost_usd=5.0))
    (waits,) = candidates.plan_round(
        replace(ctx, policies={**ctx.policies, "default": capped}),
        world.route(),
        WEEKLY,
    ).waiting
    assert "so the policy's `max_cost_usd` would end its run" in waits.remark
    cheaper = replace(WEEKLY, prefer=Preference.CHEAPER)
    (waits,) = candidates.plan_round(ctx, world.route(), cheaper).waiting
    assert waits.remark.startswith("the price of sim/better is unknown, so no saving")
    set_prices(world, base=None)
    assert len(candidates.plan_round(ctx, world.route(), WEEKLY).measured) == 2


@pytest.mark.req("A3")
def test_only_news_where_the_schedule_asks_for_no_more(world: SmallInstallation) -> None:
    world.script = skilled
    list_models(world, "base", "better")
    schedule(world, replace(WEEKLY, on_better=OnBetter.NOTIFY))
    wait_until(world, MONDAY)
    run_schedule(world)

    made = run_until_decided(world)["better"]

    assert made.phase is ProposalPhase.REJECTED
    assert "passed on schedule" in made.closed_because
    with world.store.read() as tx:
        kinds = [record.kind for record in Alerts(tx).unsettled()]
        assert AlertKind.BETTER_CANDIDATE in kinds or Alerts(tx).newest(
            f"{AlertKind.BETTER_CANDIDATE.value}:{made.id}"
        )


@pytest.mark.req("A3")
def test_a_canary_opens_by_itself_where_the_schedule_and_the_policy_say_so(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    list_models(world, "base", "better")
    schedule(world, replace(WEEKLY, on_better=OnBetter.CANARY))
    wait_until(world, MONDAY)
    run_schedule(world)

    assert run_until_decided(world)["better"].phase is ProposalPhase.CANARY


def roll_back_on(
    world: SmallInstallation,
    route: str,
    candidate: str,
) -> Proposal:
    """A person's proposal on another route, whose canary harms its users."""
    proposal = world.decided(candidate, route=route)
    assert proposal.phase is ProposalPhase.CANARY, proposal.closed_because
    world.feed(failing=True, blocks=10)
    world.run_once()
    rolled_back = world.get(proposal.id)
    assert rolled_back.phase is ProposalPhase.ROLLED_BACK
    return rolled_back


@pytest.mark.req("A3", "A7")
@pytest.mark.parametrize("on_better", OnBetter)
def test_a_candidate_that_another_route_rolled_back_is_proposed_with_that_fact(
    world: SmallInstallation, on_better: OnBetter
) -> None:
    world.script = skilled
    world.add_route("mail")
    before = roll_back_on(world, "mail", "sim/better")
    list_models(world, "base", "better")
    schedule(world, replace(WEEKLY, on_better=on_better))
    named = f"sim/better was rolled back on route mail on {before.updated_at:%Y-%m-%d}"
    [planned] = leaderboard.load_leaderboard(world.context(), "chat").next_round.measured
    assert named in planned.setbacks

    wait_until(world, MONDAY)
    [line] = run_schedule(world)
    assert named in line
    made = run_until_decided(world)["better"]
    assert named in made.reason
    assert before.id in made.reason
    with world.store.read() as tx:
        [event] = [e for e in AuditLog(tx).all() if e.action == "candidates.round"]
        kind = AlertKind.AWAITING_APPROVAL
        if on_better is OnBetter.NOTIFY:
            kind = AlertKind.BETTER_CANDIDATE
        raised = Alerts(tx).newest(f"{kind.value}:{made.id}")
    assert named in str(event.details["setbacks"])
    assert raised is not None
    assert named in raised.text
    # No canary opens by itself.
    if on_better is not OnBetter.NOTIFY:
        assert made.phase is ProposalPhase.AWAITING_APPROVAL


@pytest.mark.req("A3", "A7")
def test_a_failed_verdict_of_another_route_is_named_and_stops_no_canary(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    world.add_route("mail")
    failed = world.decided("sim/worse", route="mail")
    assert failed.phase is ProposalPhase.REJECTED
    list_models(world, "base", "better", "worse")
    schedule(world, replace(WEEKLY, on_better=OnBetter.CANARY))
    wait_until(world, MONDAY)
    run_schedule(world)
    made = run_until_decided(world)

    assert f"sim/worse failed the gate on route mail on {failed.updated_at:%Y-%m-%d}" in (
        made["worse"].reason
    )
    assert "sim/worse" not in made["better"].reason
    assert made["better"].phase is ProposalPhase.CANARY


@pytest.mark.req("A3")
def test_a_rollback_during_the_round_keeps_its_canary_from_opening(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    world.add_route("mail")
    list_models(world, "base", "better")
    schedule(world, replace(WEEKLY, on_better=OnBetter.CANARY))
    wait_until(world, MONDAY)
    elsewhere = world.decided("sim/better", route="mail")
    run_schedule(world)
    with world.store.write() as tx:
        canary = Proposals(tx).get(elsewhere.id)
        Proposals(tx).save(
            apply_event(canary, ProposalEvent.HARM, world.clock.now(), "errors rose")
        )
    made = run_until_decided(world)["better"]

    assert "mail" not in made.reason
    assert made.phase is ProposalPhase.AWAITING_APPROVAL


@pytest.mark.req("A3")
def test_an_old_setback_and_one_before_a_promotion_are_not_named(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    world.add_route("mail")
    before = roll_back_on(world, "mail", "sim/better")
    now = before.updated_at
    with world.store.read() as tx:
        at_the_end = find_setbacks(tx, {"sim/better"}, now + route_risk.WINDOW)
        later = now + route_risk.WINDOW + timedelta(seconds=1)
        assert list(at_the_end) == ["sim/better"]
        assert not find_setbacks(tx, {"sim/better"}, later)
        assert not find_setbacks(tx, {"sim/good"}, now)
    with world.store.write() as tx:
        promoted = replace(
            before,
            id="p_promoted",
            phase=ProposalPhase.PROMOTED,
            closed_because="",
            updated_at=now + timedelta(hours=1),
        )
        Proposals(tx).add(promoted)
        assert not find_setbacks(tx, {"sim/better"}, now + timedelta(hours=2))


@pytest.mark.req("A3")
def test_no_schedule_opens_canaries_where_the_policy_asks_a_person(
    world: SmallInstallation,
) -> None:
    world.policy = approved()
    with pytest.raises(InputError, match="requires approval"):
        schedule(world, replace(WEEKLY, on_better=OnBetter.CANARY))


@pytest.mark.req("A3")
def test_a_person_who_proposes_ends_the_round_that_is_measured(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    list_models(world, "base", "good", "worse")
    schedule(world, WEEKLY)
    wait_until(world, MONDAY)
    run_schedule(world)

    mine = world.propose("sim/better")

    made = proposals(world)
    assert {made["good"].phase, made["worse"].phase} == {ProposalPhase.CANCELLED}
    assert "ann proposed" in made["good"].closed_because
    assert world.get(mine.id).open


@pytest.mark.req("A3")
def test_a_round_waits_while_a_person_s_swap_is_under_way(world: SmallInstallation) -> None:
    world.script = skilled
    list_models(world, "base", "good")
    schedule(world, WEEKLY)
    mine = world.propose("sim/worse", ANN)
    wait_until(world, MONDAY)

    run_schedule(world)
    assert set(proposals(world)) == {"worse"}
    world.until_decided(mine.id)
    run_until_decided(world)
    run_schedule(world)
    assert set(proposals(world)) == {"worse", "good"}


@pytest.mark.req("F11")
def test_a_model_that_leaves_the_list_leaves_the_candidates(world: SmallInstallation) -> None:
    list_models(world, "base", "good", "better")
    ctx = world.context()
    found, _ = candidates.select_candidates(
        ctx,
        "sim/base",
        WEEKLY,
    )
    assert [model.name for model in found] == ["sim/better", "sim/good"]

    list_models(world, "base", "better")
    found, _ = candidates.select_candidates(
        ctx,
        "sim/base",
        WEEKLY,
    )
    assert [model.name for model in found] == ["sim/better"]


@pytest.mark.req("A3")
def test_faults_of_a_schedule_are_said_when_it_is_set(world: SmallInstallation) -> None:
    world.propose("sim/equal")
    run_until_decided(world)
    list_models(world, "base", "good")
    route = world.route()

    def faults(plan: CandidateSchedule) -> str:
        settings = replace(route.settings, candidates=plan)
        return "; ".join(
            candidates.describe_faults(world.context(), replace(route, settings=settings))
        )

    assert not faults(WEEKLY)
    assert "sim/none-* selects no model" in faults(replace(WEEKLY, models=("sim/none-*",)))
    assert "serves already" in faults(replace(WEEKLY, models=("sim/base",)))
    assert "did you mean 'sim/good'?" in faults(replace(WEEKLY, models=("sim/god",)))
    too_low = faults(replace(WEEKLY, models=("sim/*:price<0.001",)))
    assert "models is known and below the ceiling" in too_low
    assert "never comes" in faults(replace(WEEKLY, every="0 0 31 2 *"))
    assert "is below the smallest round" in faults(replace(WEEKLY, budget_usd=1e-9))


@pytest.mark.req("A3")
def test_patterns_and_ceilings() -> None:
    cheap = Price(0.1, 0.4).higher_usd_per_mtok
    dear = Price(0.1, 0.6).higher_usd_per_mtok
    (pattern,) = parse_patterns(["openrouter/*:price<0.5"])
    assert pattern.takes("openrouter/a/b:free", cheap)
    assert not pattern.takes("openrouter/a/b", dear)
    assert not pattern.takes("openrouter/a/b", None)
    assert not pattern.takes("openai/a", cheap)
    with pytest.raises(InputError, match="did you mean 'openai/\\*:price<9'"):
        parse_patterns(["openai/*:prise<9"])
    for wrong in (
        "gpt-5",
        "openai/",
        "openai/*:price<x",
        "openai/*:price>1",
        "",
    ):
        with pytest.raises(InputError, match="selects no models"):
            parse_patterns([wrong])


@pytest.mark.req("A3")
def test_no_number_of_rounds_spends_the_whole_quarter() -> None:
    spent = 0.0
    for _ in range(1000):
        spent += 5 * round_alpha(spent, 5)
    assert spent < QUARTER_ALPHA


@pytest.mark.req("A3", "F4")
def test_the_leaderboard_has_every_measured_model_with_its_standing(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    list_models(world, "base", "better", "worse", "equal")
    schedule(world, WEEKLY)
    wait_until(world, MONDAY)
    run_schedule(world)
    run_until_decided(world)
    list_models(world, "base", "better", "worse", "equal", "good")

    board = leaderboard.load_leaderboard(world.context(), "chat")

    standings = {row.name: row.standing for row in board.rows}
    assert standings["sim/base"] is Standing.INCUMBENT
    assert standings["sim/better"] is Standing.BETTER
    assert standings["sim/worse"] in {Standing.WORSE, Standing.HOPELESS}
    assert standings["sim/equal"] in {Standing.OPEN, Standing.HOPELESS}
    assert [row.score for row in board.rows] == sorted(
        (row.score or 0.0 for row in board.rows), reverse=True
    )
    best = board.rows[0]
    assert best.name == "sim/better"
    assert best.delta == pytest.approx(35 / 60, abs=0.1)
    assert best.delta_low is not None
    assert best.delta_low > 0
    assert best.is_cheapest_so_good
    assert [one.name for one in board.next_round.measured] == ["sim/good"]
    assert board.next_round_at == MONDAY + timedelta(days=7)


@pytest.mark.req("A3", "F4")
@pytest.mark.parametrize("after_commit", [False, True])
@pytest.mark.parametrize("at", [1, 2])
def test_a_crash_within_a_round_leads_to_one_round(
    world: SmallInstallation,
    at: int,
    *,
    after_commit: bool,
) -> None:
    world.script = skilled
    list_models(world, "base", "good", "worse")
    schedule(world, WEEKLY)
    wait_until(world, MONDAY)
    dying = CrashingStore(world.store, at=at, after_commit=after_commit)
    with pytest.raises(Crash):
        candidate_rounds.run_once(world.context(cast("Store", dying)))

    run_schedule(world)
    run_until_decided(world)
    run_schedule(world)

    with world.store.read() as tx:
        made = Proposals(tx).list(route="chat")
    assert sorted(p.candidate for p in made) == sorted({p.candidate for p in made})
    assert len(made) == 2


@pytest.mark.req("A3")
def test_the_leaderboard_keeps_its_models_when_another_one_serves(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    world.decided("sim/worse")
    settings = world.route().settings
    routes.create_route(world.context(), SYSTEM, "other", "sim/better", settings=settings)

    rows = {
        row.name: row for row in leaderboard.load_leaderboard(world.context(), "other").rows
    }

    assert rows["sim/better"].standing is Standing.INCUMBENT
    assert rows["sim/worse"].standing is Standing.EARLIER
    assert rows["sim/worse"].score is not None
    assert rows["sim/worse"].delta is None
