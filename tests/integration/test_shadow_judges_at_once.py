"""Several control processes on one database judge a shadow's pairs as one process does."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from harness.app.store.store import Store
from harness.canary import shadows
from harness.canary.shadow_verdict import ENDED_BY_VERDICT
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alert_record import AlertRecord
from harness.frame.alerts.records import Alerts
from harness.frame.signing.audit_log import AuditLog
from harness.operations.control_jobs import MonitoredJob
from harness.operations.shadow_judging import BATCH, JUDGE_OF, PairJudgement, ShadowJudging
from harness.routing.capture import CapturedRequest
from harness.routing.shadow import Shadow
from tests.integration import test_shadow_verdict
from tests.integration.test_shadow_verdict import ScriptedJudge, enter, scores_of, start
from tests.support.control.control_plane import SmallInstallation

pytestmark = [pytest.mark.req("F8", "G6"), pytest.mark.both_databases]

scene = test_shadow_verdict.scene
PAIRS = 60
TIES = 24  # the first batches give no verdict
USD = 0.001


def judge_of(shadow: Shadow, before: Callable[[], object] = lambda: None) -> ScriptedJudge:
    """A judge of ties, and then of wins.

    Args:
        before: what happens before each of its answers.
    """
    ties = {f"{shadow.id}-{number}" for number in range(TIES)}

    def compare(pair: CapturedRequest) -> PairJudgement:
        before()
        return PairJudgement(0.5 if pair.id in ties else 1.0, calls=2, cost_usd=USD)

    return ScriptedJudge(compare)


def job_of(store: Store, name: str, judge: ScriptedJudge) -> MonitoredJob:
    """The job of a control process, as its schedule runs it."""
    leads = partial(store.try_lead, name)
    return MonitoredJob("shadow judges", ShadowJudging(judge, leads), leads)


def is_ended(world: SmallInstallation) -> bool:
    return shadows.load_status(world.context(), "chat").shadow.ended_at is not None


def assert_one_verdict(world: SmallInstallation, shadow: Shadow, asked: int) -> None:
    """Checks the verdict, its only alert and end, and that each question to a judge is paid."""
    scores = scores_of(world, shadow)
    assert [score.number for score in scores] == [*range(1, len(scores) + 1)]
    assert [score.pair for score in scores] == [f"{shadow.id}-{n}" for n in range(len(scores))]
    status = shadows.load_status(world.context(), "chat")
    assert status.verdict
    assert (status.verdict.outcome, status.shadow.ended_because) == ("passed", ENDED_BY_VERDICT)
    assert status.judge_usd == pytest.approx(USD * asked)
    with world.store.read() as tx:
        failure = Alerts(tx).newest(f"{AlertKind.JOB_FAILED.value}:{JUDGE_OF}{shadow.id}")
        verdict = Alerts(tx).newest(f"{AlertKind.SHADOW_VERDICT.value}:{shadow.id}")
        ends = [event for event in AuditLog(tx).all() if event.action == "shadow.stop"]
    assert isinstance(verdict, AlertRecord)
    assert verdict.count == 1
    assert len(ends) == 1
    assert failure is None


def test_of_two_control_processes_one_pays_for_each_pair_and_one_verdict_comes(
    scene: SmallInstallation, elsewhere: Store
) -> None:
    shadow = start(scene)
    enter(scene, shadow, *range(PAIRS))
    stores = (scene.store, elsewhere)
    judges = [judge_of(shadow) for _ in stores]
    together = threading.Barrier(len(stores))

    def run(store: Store, judge: ScriptedJudge) -> None:
        job = job_of(store, f"control-{id(store)}", judge)
        ctx = scene.context(store)
        for _ in range(PAIRS):
            together.wait()
            job(ctx)

    with ThreadPoolExecutor(len(stores)) as pool:
        for future in [pool.submit(run, *pair) for pair in zip(stores, judges, strict=True)]:
            future.result()

    asked = [pair for judge in judges for pair in judge.asked]
    assert len(asked) == len({*asked})
    assert is_ended(scene)
    assert_one_verdict(scene, shadow, len(asked))


def test_a_process_that_lost_the_lead_while_its_judge_answered_adds_no_score_and_asks_no_more(
    scene: SmallInstallation, elsewhere: Store
) -> None:
    shadow = start(scene)
    enter(scene, shadow, *range(PAIRS))
    is_asked = threading.Event()
    may_answer = threading.Event()

    def wait() -> None:
        is_asked.set()
        assert may_answer.wait(60)

    first = judge_of(shadow, wait)
    second = judge_of(shadow)
    old = job_of(scene.store, "old", first)
    new = job_of(elsewhere, "new", second)
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(old, scene.context())
        assert is_asked.wait(60)
        # As if the server had ended the silent leader's connection.
        scene.store._leadership.resign()
        new(scene.context(elsewhere))
        assert len(scores_of(scene, shadow)) == BATCH
        may_answer.set()
        turn.result()

    assert len(scores_of(scene, shadow)) == BATCH
    for _ in range(PAIRS):
        old(scene.context())
        new(scene.context(elsewhere))
    # Only what was under way is paid twice, as with each process that ends meanwhile.
    assert first.asked == second.asked[:BATCH]
    assert len(second.asked) == len({*second.asked})
    assert_one_verdict(scene, shadow, len(first.asked) + len(second.asked))
