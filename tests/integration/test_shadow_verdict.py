"""A shadow's judge scores callers' first pairs, and its verdict ends the shadow."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from harness.canary import shadows
from harness.canary.shadow_verdict import ANY_TRAFFIC, ENDED_BY_VERDICT, ShadowJudge, design_of
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alert_record import AlertRecord
from harness.frame.alerts.records import Alerts
from harness.frame.errors import InputError, NotAllowed, NotFound
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.gate.budget import spend_alpha
from harness.gate.offline.shadow_evidence import UNSCORED, judge_shares
from harness.gate.policy import GatePolicy
from harness.gate.suite_plan import Claim
from harness.operations import captures, control_jobs
from harness.operations.records import Captures
from harness.operations.shadow_judging import (
    GIVE_UP_AFTER,
    JUDGE_OF,
    PairJudgement,
    ShadowJudging,
)
from harness.proposals.registration.look_counts import count_looks
from harness.providers.registry import targets
from harness.providers.target import Price, Provider
from harness.routing.capture import CapturedRequest
from harness.routing.control import routes
from harness.routing.records.interventions import Shadows
from harness.routing.records.shadow_scores import ShadowScores, list_shadow_looks, shadow_score
from harness.routing.reliability.failover import hash_user
from harness.routing.shadow import Shadow, ShadowLimits, ShadowTerms
from harness.routing.shadow_pair import STORING_TIME, CandidateAnswer, CandidateOutcome
from harness.routing.shadow_score import ScoreReason, ShadowScore
from tests.contract import test_store_observations as observations
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.control.people import BEN
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("F8")

ADMIN = Actor("root", Role.ADMIN, "pr_root")
JUDGE = ShadowJudge("ref/judge", "Better is better.", anyway="it is ours")
LIMITS = ShadowLimits(usd_per_day=5.0)
ANSWERS = {"answer": {"content": "yes"}, "candidate": {"content": "no"}}


@dataclass
class ScriptedJudge:
    """Answers by a script; keeps the pairs that it was asked."""

    script: Callable[[CapturedRequest], PairJudgement | None]
    asked: list[str] = field(default_factory=list)

    def compare(
        self, terms: ShadowTerms, pairs: Sequence[CapturedRequest]
    ) -> Sequence[PairJudgement | None]:
        assert terms.judge == JUDGE.name
        self.asked += [pair.id for pair in pairs]
        return [self.script(pair) for pair in pairs]


def always(share: float | None, usd: float = 0.001) -> ScriptedJudge:
    judgement = PairJudgement(share, calls=2, cost_usd=usd, failure="away")
    return ScriptedJudge(lambda _: judgement)


@pytest.fixture
def scene(world: SmallInstallation) -> SmallInstallation:
    world.policy = replace(world.policy, gate=GatePolicy(claim=Claim.NON_INFERIOR, margin=0.1))
    reference = Provider("ref", "sim", "http://127.0.0.1:9/v1", prices={"judge": Price(1, 1)})
    targets.put_provider(world.context(), SYSTEM, reference)
    capture(world, bps=100)
    return world


def capture(world: SmallInstallation, *, bps: int, route: str = "chat") -> None:
    routes.change_settings(
        world.context(), SYSTEM, route, lambda now: replace(now, capture_bps=bps)
    )


def start(
    world: SmallInstallation,
    judge: ShadowJudge | None = JUDGE,
    route: str = "chat",
    **changed: Any,
) -> Shadow:
    limits = replace(LIMITS, **changed)
    return shadows.start_shadow(
        world.context(), BEN, route, "sim/better", limits, reason="a look", judge=judge
    )


def terms_of(shadow: Shadow) -> ShadowTerms:
    assert shadow.terms is not None
    return shadow.terms


def enter(
    world: SmallInstallation,
    shadow: Shadow,
    *numbers: int,
    outcome: CandidateOutcome = CandidateOutcome.ANSWERED,
    incumbent: bool = True,
    shift: int = 0,
    user: str = "",
    keep_days: int = 30,
) -> None:
    """Stores a pair of each caller, in the order of the numbers."""
    for number in numbers:
        at = world.clock.now() + timedelta(microseconds=number)
        pending = CandidateAnswer("sim/better", at + timedelta(minutes=1))
        pair = replace(
            observations.ONE,
            id=f"{shadow.id}-{number + shift}",
            at=at,
            expires_at=at + timedelta(days=keep_days),
            user_hash=hash_user(f"header:{user}", SECRET),
            route="chat",
            data_class=shadow.data_class,
            caller=f"caller-{number}",
            content={},
            shadow=shadow.id,
            candidate=pending,
        )
        answers = ANSWERS if incumbent else {"candidate": ANSWERS["candidate"]}
        content = {**observations.ONE.content, **answers}
        if not incumbent:
            del content["answer"]
        with world.store.write() as tx:
            Captures(tx).store_pair(pair)
            answered = replace(pending, outcome=outcome)
            Captures(tx).store_pair(replace(pair, content=content, candidate=answered))
    world.clock.advance(STORING_TIME.total_seconds() + 1)


def scores_of(world: SmallInstallation, shadow: Shadow) -> Sequence[ShadowScore]:
    with world.store.read() as tx:
        return ShadowScores(tx).of_series(terms_of(shadow).series)


def judge_all(world: SmallInstallation, judge: ScriptedJudge, turns: int = 20) -> ShadowJudging:
    job = ShadowJudging(judge)
    for _ in range(turns):
        job(world.context())
    return job


@pytest.mark.spine
def test_a_shadow_passes_at_its_first_evidence_ends_and_names_the_next_step(
    scene: SmallInstallation,
) -> None:
    started = start(scene)
    enter(scene, started, *range(40))
    ties = {f"{started.id}-{n}" for n in range(8)}
    judge = ScriptedJudge(
        lambda pair: PairJudgement(0.5 if pair.id in ties else 1.0, calls=2, cost_usd=0.001)
    )
    job = ShadowJudging(judge)
    job(scene.context())
    running = shadows.load_status(scene.context(), "chat")
    assert running.verdict
    assert (running.verdict.callers, running.verdict.evidence) == (8, None)
    assert "none yet" in str(shadows.list_figures(running))

    for _ in range(5):
        job(scene.context())

    status = shadows.load_status(scene.context(), "chat")
    verdict = status.verdict
    assert verdict
    assert verdict.evidence
    assert verdict.outcome == "passed"
    assert verdict.words.startswith("PASSED: by ref/judge (in spite of its maker: it is ours)")
    assert status.shadow.ended_by == SYSTEM.name
    assert status.shadow.ended_because == ENDED_BY_VERDICT
    assert (
        "swapproof suite draw chat-traffic-000001 --route chat --from captures "
        "--judge ref/judge --judge-anyway 'it is ours'"
    ) in verdict.next_step
    assert verdict.evidence.units <= verdict.callers < 40
    assert status.judge_usd == pytest.approx(0.001 * verdict.callers)
    with scene.store.read() as tx:
        alert = Alerts(tx).newest(f"{AlertKind.SHADOW_VERDICT.value}:{started.id}")
        [event] = AuditLog(tx).for_subject(
            f"shadow {started.id}",
            since=started.started_at,
            limit=1,
            actions=("shadow.stop",),
        )
    assert alert
    # Nothing that reaches people who may label later says which verdict it is.
    told = (alert.title, alert.text, event.details)
    assert "`swapproof shadow status chat`" in alert.text
    assert "passed" not in str(told).lower()
    assert (event.details["judge"], event.details["look"]) == ("ref/judge", 1)


def test_a_worse_candidate_fails_and_its_verdict_opens_nothing(
    scene: SmallInstallation,
) -> None:
    start(scene)
    enter(scene, shadows.load_status(scene.context(), "chat").shadow, *range(40))
    judge_all(scene, always(0.0))

    status = shadows.load_status(scene.context(), "chat")
    assert status.verdict
    assert status.verdict.outcome == "failed"
    assert "route candidates chat" in status.verdict.next_step
    assert scene.route().canary is None


def test_silent_models_and_lost_answers_count_as_their_rule_says_without_a_judge(
    scene: SmallInstallation,
) -> None:
    started = start(scene)
    enter(scene, started, 0, outcome=CandidateOutcome.FAILED)
    enter(scene, started, 1, outcome=CandidateOutcome.TIMED_OUT)
    enter(scene, started, 2, incumbent=False)
    enter(scene, started, 3, outcome=CandidateOutcome.TOO_LARGE)
    judge = always(1.0)
    judge_all(scene, judge, turns=1)

    found = [(score.reason, score.low, score.high) for score in scores_of(scene, started)]
    assert found == [
        (ScoreReason.CANDIDATE_SILENT, 0.0, 0.0),
        (ScoreReason.CANDIDATE_SILENT, 0.0, 0.0),
        (ScoreReason.INCUMBENT_SILENT, 0.4, 0.4),
        (ScoreReason.NOT_JUDGED, 0.0, 1.0),
    ]
    assert judge.asked == []


def test_a_failing_judge_is_asked_again_holds_the_order_and_is_given_up_after_an_hour(
    scene: SmallInstallation,
) -> None:
    started = start(scene)
    enter(scene, started, 0, 1, 2)
    fails = f"{started.id}-1"
    judge = ScriptedJudge(
        lambda pair: PairJudgement(
            None if pair.id == fails else 1.0, calls=2, cost_usd=0.001, failure="away"
        )
    )
    job = ShadowJudging(judge)
    job(scene.context())
    job(scene.context())  # rests
    assert [score.pair for score in scores_of(scene, started)] == [f"{started.id}-0"]
    assert judge.asked == [f"{started.id}-{n}" for n in range(3)]

    scene.clock.advance(60)
    job(scene.context())
    assert judge.asked[3:] == [fails]
    scene.clock.advance(GIVE_UP_AFTER.total_seconds())
    job(scene.context())

    found = [(score.pair, score.low, score.high) for score in scores_of(scene, started)]
    assert found == [
        (f"{started.id}-0", 1.0, 1.0),
        (fails, 0.0, 1.0),
        (f"{started.id}-2", 1.0, 1.0),
    ]
    # Failed calls cost, too.
    status = shadows.load_status(scene.context(), "chat")
    assert status.judge_usd == pytest.approx(0.005)
    assert status.verdict
    assert status.verdict.unknown == 1


def test_the_monthly_cap_and_the_daily_budget_wait_and_lose_no_pair(
    scene: SmallInstallation,
) -> None:
    started = start(scene, usd_per_day=0.01)
    enter(scene, started, *range(20))
    capped = ShadowJudging(ScriptedJudge(lambda _: None))
    capped(scene.context())
    assert scores_of(scene, started) == []

    judge = always(0.5, usd=0.002)
    job = ShadowJudging(judge)
    job(scene.context())
    assert len(scores_of(scene, started)) == 8
    job(scene.context())
    assert len(scores_of(scene, started)) == 8  # 1.6 cents of 1
    used = shadows.load_status(scene.context(), "chat").today
    assert used.cost_usd == pytest.approx(0.016)

    scene.clock.advance(86_400)
    job(scene.context())
    assert len(scores_of(scene, started)) == 16


def test_another_process_goes_on_where_the_first_stopped(scene: SmallInstallation) -> None:
    started = start(scene)
    enter(scene, started, *range(12))
    judge_all(scene, always(0.5), turns=1)
    second = always(0.5)
    judge_all(scene, second, turns=2)

    assert [score.number for score in scores_of(scene, started)] == list(range(1, 13))
    assert second.asked == [f"{started.id}-{n}" for n in range(8, 12)]


def test_a_restart_continues_the_series_and_counts_each_caller_once(
    scene: SmallInstallation,
) -> None:
    first = start(scene)
    enter(scene, first, *range(8))
    judge_all(scene, always(0.5), turns=2)
    shadows.stop_shadow(scene.context(), BEN, "chat")
    second = start(scene)
    enter(scene, second, *range(12), shift=100)
    judge = always(0.5)
    judge_all(scene, judge, turns=3)

    assert terms_of(second) == terms_of(first)
    assert judge.asked == [f"{second.id}-{n + 100}" for n in range(8, 12)]
    status = shadows.load_status(scene.context(), "chat")
    assert status.verdict
    assert (status.verdict.callers, status.verdict.earlier) == (12, 8)


def test_a_restart_judges_first_what_the_stopped_shadow_left_so_nobody_drops_read_pairs(
    scene: SmallInstallation,
) -> None:
    first = start(scene)
    enter(scene, first, *range(10))
    judge_all(scene, always(0.5), turns=1)
    shadows.stop_shadow(scene.context(), BEN, "chat")
    second = start(scene)
    enter(scene, second, *range(12), shift=100)
    judge = always(0.0)
    judge_all(scene, judge, turns=3)

    left = [f"{first.id}-8", f"{first.id}-9"]
    assert judge.asked == [*left, f"{second.id}-110", f"{second.id}-111"]
    assert [score.shadow for score in scores_of(scene, second)[8:]] == [
        *[first.id] * 2,
        *[second.id] * 2,
    ]


def test_a_judge_gets_no_left_pair_of_another_data_class(scene: SmallInstallation) -> None:
    first = start(scene)
    enter(scene, replace(first, data_class="secret"), 0)
    shadows.stop_shadow(scene.context(), BEN, "chat")
    second = start(scene)
    enter(scene, second, 1)
    judge = always(1.0)
    judge_all(scene, judge, turns=1)

    assert judge.asked == [f"{second.id}-1"]
    found = [(score.reason, score.low, score.high) for score in scores_of(scene, second)]
    assert found == [(ScoreReason.NOT_JUDGED, 0.0, 1.0), (ScoreReason.JUDGED, 1.0, 1.0)]


def test_a_shadow_that_a_person_stops_while_its_judge_reads_gets_no_score(
    scene: SmallInstallation,
) -> None:
    started = start(scene)
    enter(scene, started, *range(40))

    def stop(_: CapturedRequest) -> PairJudgement:
        if scores_of(scene, started):
            with suppress(NotFound):
                shadows.stop_shadow(scene.context(), BEN, "chat")
        return PairJudgement(1.0, calls=2)

    judge_all(scene, ScriptedJudge(stop), turns=3)

    assert len(scores_of(scene, started)) == 8


def test_other_terms_are_another_look_with_less_alpha_also_for_proposals(
    scene: SmallInstallation,
) -> None:
    first = start(scene)
    enter(scene, first, 0)
    judge_all(scene, always(0.5), turns=1)
    shadows.stop_shadow(scene.context(), BEN, "chat")
    second = start(scene, replace(JUDGE, criteria="Shorter is better."))

    assert (terms_of(first).alpha, terms_of(first).look) == (0.05, 1)
    assert terms_of(second).look == 2
    assert terms_of(second).alpha == spend_alpha(0.05, 2)
    assert terms_of(second).series == second.id
    with scene.store.read() as tx:
        looks = list_shadow_looks(tx, "chat", {first.candidate.id})
        assert sorted(looks) == [1, 2]
        assert list_shadow_looks(tx, "other", {first.candidate.id}) == []
        # A proposal with a suite of traffic of the route would be the third look.
        lineage = {first.candidate.id}
        counted, _ = count_looks(tx, ANY_TRAFFIC, first.candidate.id, lineage, "chat")
        assert counted == 2


def test_a_shadow_is_a_look_from_its_start_so_several_cannot_wait_with_the_whole_alpha(
    scene: SmallInstallation,
) -> None:
    rubrics = [replace(JUDGE, criteria=f"Rubric {number}.") for number in range(3)]
    for rubric in rubrics:
        start(scene, rubric)
        shadows.stop_shadow(scene.context(), BEN, "chat")
    looks = []
    for rubric in rubrics:
        looks.append(terms_of(start(scene, rubric)).look)
        shadows.stop_shadow(scene.context(), BEN, "chat")

    assert looks == [1, 2, 3]


def test_after_a_verdict_the_same_terms_are_a_new_look(scene: SmallInstallation) -> None:
    first = start(scene)
    enter(scene, first, *range(40))
    judge_all(scene, always(1.0))
    assert shadows.load_status(scene.context(), "chat").shadow.ended_at

    assert terms_of(start(scene)).look == 2


def test_a_judge_needs_captures_another_maker_a_price_and_a_rubric(
    scene: SmallInstallation,
) -> None:
    with pytest.raises(InputError, match="cannot judge its own answers"):
        start(scene, replace(JUDGE, name="sim/base"))
    with pytest.raises(InputError, match="--judge-anyway"):
        start(scene, replace(JUDGE, anyway=" "))
    with pytest.raises(InputError, match="rubric"):
        start(scene, replace(JUDGE, criteria=" "))
    with pytest.raises(InputError, match="price"):
        start(scene, replace(JUDGE, name="ref/unpriced"))
    capture(scene, bps=0)
    with pytest.raises(InputError, match="allows no captures"):
        start(scene)
    plain = start(scene, None)
    assert plain.terms is None
    status = shadows.load_status(scene.context(), "chat")
    assert status.verdict is None
    assert "no verdict" in str(shadows.list_figures(status))


def test_a_judge_that_loses_its_clearance_gets_no_pair_and_ends_the_shadow(
    scene: SmallInstallation,
) -> None:
    open_ctx = replace(scene.context(), data_classes={"personal": frozenset({"sim", "ref"})})
    closed = replace(scene.context(), data_classes={"personal": frozenset({"sim"})})
    routes.change_settings(
        open_ctx, SYSTEM, "chat", lambda now: replace(now, data_class="personal")
    )
    wanted = ("chat", "sim/better", LIMITS)
    with pytest.raises(NotAllowed):
        shadows.start_shadow(closed, BEN, *wanted, reason="a look", judge=JUDGE)
    started = shadows.start_shadow(open_ctx, BEN, *wanted, reason="a look", judge=JUDGE)
    enter(scene, started, 0)
    judge = always(1.0)
    ShadowJudging(judge)(closed)

    assert judge.asked == []
    [line] = shadows.end_finished(closed)
    assert "ref/judge" in line


def delete_by_person(world: SmallInstallation, pairs: Sequence[str]) -> None:
    for pair in pairs:
        captures.purge_captures(world.context(), ADMIN, secret=SECRET, id_=pair)


def delete_by_user(world: SmallInstallation, _: Sequence[str]) -> None:
    deletion = captures.delete_user(
        world.context(), ADMIN, "kim@example.org", "request 7", secret=SECRET
    )
    assert deletion.captures


def delete_by_age(world: SmallInstallation, _: Sequence[str]) -> None:
    world.clock.advance(86_400)
    days = dict.fromkeys(("alerts_days", "exposures_days", "failovers_days"), 30.0)
    control_jobs.purge_expired(world.context(), **days, traffic_days=30.0)


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("delete", "share", "outcome"),
    [
        (delete_by_person, 1.0, "passed"),
        (delete_by_user, 0.0, "failed"),
        (delete_by_age, 1.0, "passed"),
    ],
)
def test_a_pair_that_is_deleted_before_its_judge_counts_as_unknown_against_both_verdicts(
    scene: SmallInstallation,
    delete: Callable[[SmallInstallation, Sequence[str]], None],
    share: float,
    outcome: str,
) -> None:
    started = start(scene)
    terms = terms_of(started)
    enter(scene, started, 0, user="kim@example.org", keep_days=1)
    judge_all(scene, always(share), turns=1)
    doomed = range(1, 4)
    enter(scene, started, *doomed, user="kim@example.org", keep_days=1)
    delete(scene, [f"{started.id}-{number}" for number in doomed])

    # The judged pair is deleted too, and keeps its score.
    unknown = [(ScoreReason.DELETED, 0.0, 1.0)] * 3
    known = (ScoreReason.JUDGED, share, share)
    found = [(score.reason, score.low, score.high) for score in scores_of(scene, started)]
    assert found == [known, *unknown]

    # Nor does its caller count a second time.
    enter(scene, started, *range(1, 40), shift=100)
    judge = always(share)
    judge_all(scene, judge)
    assert not {f"{started.id}-{number + 100}" for number in doomed} & {*judge.asked}
    status = shadows.load_status(scene.context(), "chat")
    assert status.verdict
    assert status.verdict.evidence
    assert (status.verdict.outcome, status.verdict.deleted) == (outcome, 3)
    units = status.verdict.evidence.units
    bounds = [known[1:], *[UNSCORED] * 3, *[known[1:]] * 36]
    assert judge_shares(bounds, design_of(terms)) == status.verdict.evidence
    assert judge_shares([known[1:]] * 40, design_of(terms)).units < units
    assert "3 deleted before the judge read them" in str(shadows.list_figures(status))


def test_deleted_pairs_of_a_decided_series_or_of_sampled_requests_are_not_counted(
    scene: SmallInstallation,
) -> None:
    started = start(scene)
    enter(scene, started, *range(40))
    judge_all(scene, always(1.0))
    before = scores_of(scene, started)
    with scene.store.write() as tx:
        sampled = replace(observations.ONE, id="cap_9", expires_at=scene.clock.now())
        Captures(tx).store(
            replace(sampled, at=sampled.expires_at - timedelta(days=1)), most_per_day=9
        )

    captures.purge_captures(scene.context(), ADMIN, secret=SECRET, everything=True)

    assert scores_of(scene, started) == before
    with scene.store.read() as tx:
        series = Shadows(tx).of_series("chat", started.id)
        assert Captures(tx).pairs(series, judged=(), limit=99) == []


FORGERIES = {
    "shadow_score": sa.update(shadow_score).values(low=1.0, high=1.0),
    "score 2 of the series": sa.delete(shadow_score).where(shadow_score.c.number == 2),
}


@pytest.mark.parametrize("named", FORGERIES)
def test_a_forged_score_stops_its_own_shadow_alone_until_it_is_repaired(
    scene: SmallInstallation, named: str
) -> None:
    scene.add_route("mail")
    capture(scene, bps=100, route="mail")
    forged = start(scene)
    enter(scene, forged, *range(12))
    judge_all(scene, always(0.5), turns=1)
    with owned(scene.store) as db:
        stored = [row._asdict() for row in db.execute(sa.select(shadow_score))]
        db.execute(FORGERIES[named])
    other = start(scene, route="mail")
    enter(scene, other, *range(40))

    judge = always(1.0)
    job = judge_all(scene, judge)

    assert not any(pair.startswith(forged.id) for pair in judge.asked)
    status = shadows.load_status(scene.context(), "chat")
    assert status.verdict
    assert (status.verdict.outcome, status.verdict.evidence) == ("running", None)
    assert named in status.verdict.words
    passed = shadows.load_status(scene.context(), "mail")
    assert passed.verdict
    assert passed.verdict.outcome == "passed"
    alert = stopped_alert(scene, forged)
    assert (alert.open, alert.count, alert.subject) == (True, 1, "route chat")
    assert "sim/better on route chat" in alert.title
    assert named in alert.text
    assert "`swapproof db check`" in alert.text
    assert "`swapproof shadow stop chat`" in alert.text

    with owned(scene.store) as db:
        db.execute(sa.delete(shadow_score).where(shadow_score.c.series == forged.id))
        db.execute(
            sa.insert(shadow_score), [row for row in stored if row["series"] == forged.id]
        )
    job(scene.context())
    assert not stopped_alert(scene, forged).open
    assert len(scores_of(scene, forged)) == 12


def test_the_alert_of_a_stopped_judge_ends_with_its_shadow(scene: SmallInstallation) -> None:
    started = start(scene)
    enter(scene, started, *range(4))

    def breaks(_: CapturedRequest) -> PairJudgement:
        raise ZeroDivisionError("a fault of Swapproof")

    job = judge_all(scene, ScriptedJudge(breaks), turns=2)
    alert = stopped_alert(scene, started)
    assert (alert.open, alert.count) == (True, 1)
    assert "ZeroDivisionError: a fault of Swapproof" in alert.text

    shadows.stop_shadow(scene.context(), BEN, "chat")
    job(scene.context())
    assert not stopped_alert(scene, started).open


def stopped_alert(world: SmallInstallation, shadow: Shadow) -> AlertRecord:
    with world.store.read() as tx:
        alert = Alerts(tx).newest(f"{AlertKind.JOB_FAILED.value}:{JUDGE_OF}{shadow.id}")
    assert alert
    return alert
