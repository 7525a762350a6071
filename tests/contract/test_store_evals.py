from dataclasses import astuple, replace
from datetime import timedelta

import pytest

from harness.app.store.store import Store
from harness.frame.errors import LeaseLost, NotFound
from harness.gate.run import (
    ANSWER_PLACEHOLDER,
    AnswerColumns,
    RunState,
    SampleError,
)
from harness.providers.records import Targets
from harness.routing.records.runs import ENDED_STATES, EvalRuns
from tests.support.store.records import LATER, NEW, NOW, OLD, RUN, SAMPLE

MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def run(store: Store) -> None:
    with store.write() as tx:
        Targets(tx).add(OLD)
        Targets(tx).add(NEW)
        EvalRuns(tx).add(RUN)


def test_a_run_is_shared_by_fingerprint_unless_it_failed_or_is_old(store: Store) -> None:
    with store.write() as tx:
        EvalRuns(tx).add(replace(RUN, id="r_2", created_at=NOW + MINUTE))
        failed = replace(
            RUN,
            id="r_3",
            created_at=NOW + 2 * MINUTE,
            state=RunState.FAILED,
        )
        EvalRuns(tx).add(failed)

    with store.read() as tx:
        shared = EvalRuns(tx).shared(RUN.fingerprint, not_before=NOW)
        assert shared is not None
        assert shared.id == "r_2"
        assert EvalRuns(tx).shared(RUN.fingerprint, not_before=NOW + 2 * MINUTE) is None


def test_a_run_is_scored_by_what_it_learned_of_its_target(store: Store) -> None:
    """What has no score tells nothing, nor does an answer in which nothing can be read."""
    lost = replace(
        SAMPLE,
        strict=None,
        lenient=None,
        error=SampleError.INFRA,
    )
    with store.write() as tx:
        assert not EvalRuns(tx).scored(RUN.id)
        EvalRuns(tx).store_sample(lost)
        assert not EvalRuns(tx).scored(RUN.id)
        EvalRuns(tx).store_sample(replace(lost, item="j", error=SampleError.UNSCORED))
        EvalRuns(tx).store_sample(
            replace(
                SAMPLE,
                item="k",
                strict=0.0,
                lenient=0.0,
                rule="no_label",
            )
        )
        assert not EvalRuns(tx).scored(RUN.id)
        EvalRuns(tx).store_sample(replace(SAMPLE, item="l"))
        assert EvalRuns(tx).scored(RUN.id)


def test_a_lease_belongs_to_one_owner_until_it_expires(store: Store) -> None:
    with store.write() as tx:
        assert EvalRuns(tx).lease(
            RUN.id,
            "w1",
            now=NOW,
            until=NOW + MINUTE,
        )
        assert not EvalRuns(tx).lease(
            RUN.id,
            "w2",
            now=NOW,
            until=LATER,
        )
        assert EvalRuns(tx).lease(
            RUN.id,
            "w1",
            now=NOW,
            until=NOW + 2 * MINUTE,
        )
        assert not EvalRuns(tx).lease(
            RUN.id,
            "w2",
            now=NOW + MINUTE,
            until=LATER,
        )
        assert EvalRuns(tx).lease(
            RUN.id,
            "w2",
            now=NOW + 2 * MINUTE,
            until=LATER,
        )
        with pytest.raises(NotFound):
            EvalRuns(tx).lease(
                "r_unknown",
                "w1",
                now=NOW,
                until=LATER,
            )

    with store.read() as tx:
        leased = EvalRuns(tx).get(RUN.id)
        assert (leased.lease_owner, leased.lease_until) == ("w2", LATER)


def test_only_its_owner_leaves_a_run(store: Store) -> None:
    with store.write() as tx:
        EvalRuns(tx).lease(
            RUN.id,
            "w1",
            now=NOW,
            until=LATER,
        )
        assert not EvalRuns(tx).leave(RUN.id, "w2", RunState.DONE)
        assert EvalRuns(tx).get(RUN.id).lease_owner == "w1"
        assert EvalRuns(tx).leave(RUN.id, "w1", RunState.OVER_BUDGET, "no money left")
        left = replace(RUN, state=RunState.OVER_BUDGET, message="no money left")
        assert EvalRuns(tx).get(RUN.id) == left
        assert not EvalRuns(tx).leave(RUN.id, "w1", RunState.DONE)
        with pytest.raises(NotFound):
            EvalRuns(tx).leave("r_unknown", "w1", RunState.DONE)


def test_only_the_owner_of_the_lease_stores_by_it(store: Store) -> None:
    with store.write() as tx:
        EvalRuns(tx).lease(
            RUN.id,
            "w1",
            now=NOW,
            until=NOW + MINUTE,
        )
        assert EvalRuns(tx).store_sample(SAMPLE, owner="w1")
        EvalRuns(tx).lease(
            RUN.id,
            "w2",
            now=NOW + MINUTE,
            until=LATER,
        )
    late = replace(SAMPLE, item="i2", position=1)
    with (
        pytest.raises(LeaseLost, match=r"w2 holds the lease of run .*, not w1"),
        store.write() as tx,
    ):
        EvalRuns(tx).store_sample(late, owner="w1")
    with store.write() as tx:
        assert EvalRuns(tx).store_sample(late, owner="w2")
        EvalRuns(tx).set_state(RUN.id, RunState.STOPPED)
    with (
        pytest.raises(LeaseLost, match=r"no worker holds the lease of run .*, not w2"),
        store.write() as tx,
    ):
        EvalRuns(tx).store_sample(replace(SAMPLE, item="i3", position=2), owner="w2")

    with store.read() as tx:
        assert [sample.item for sample in EvalRuns(tx).samples(RUN.id)] == [
            "i1",
            "i2",
        ]


def test_outcomes_and_figures_are_the_samples_without_their_texts(store: Store) -> None:
    silent = replace(
        SAMPLE,
        item="i2",
        position=1,
        answer="",
        prompt="a long question",
    )
    with store.write() as tx:
        for sample in (
            replace(SAMPLE, item="i3", position=2),
            silent,
            SAMPLE,
        ):
            EvalRuns(tx).store_sample(sample)

    with store.read() as tx:
        in_order = [sample.position for sample in EvalRuns(tx).samples(RUN.id)]
        assert in_order == [0, 1, 2]
        assert list(EvalRuns(tx).outcomes(RUN.id, below=2)) == [
            replace(SAMPLE, answer=ANSWER_PLACEHOLDER, prompt=""),
            replace(silent, prompt=""),
        ]
        read = EvalRuns(tx).figures(RUN.id, below=2)
        assert sorted(zip(*astuple(read), strict=True)) == sorted(
            zip(
                *astuple(AnswerColumns.from_samples([SAMPLE, silent])),
                strict=True,
            )
        )
        assert len(EvalRuns(tx).figures(RUN.id, below=0)) == 0
        asked = ["i3", SAMPLE.item, "unknown"]
        assert [sample.item for sample in EvalRuns(tx).samples_of(RUN.id, asked)] == [
            SAMPLE.item,
            "i3",
        ]
        assert next(iter(EvalRuns(tx).samples_of(RUN.id, asked))) == SAMPLE


def test_any_answer_of_a_model_can_be_stored(store: Store) -> None:
    wild = "a\0b \ud800 ü 漢 'quoted' \"twice\" \\ % :name"
    with store.write() as tx:
        assert EvalRuns(tx).store_sample(replace(SAMPLE, answer=wild))

    with store.read() as tx:
        stored = EvalRuns(tx).samples(RUN.id)[0].answer
        assert stored == wild.replace("\0", "\u2400").replace("\ud800", "\ufffd")


def test_a_lease_from_a_clock_that_was_set_back_since_is_not_waited_for(store: Store) -> None:
    hour = 60 * MINUTE
    with store.write() as tx:
        assert EvalRuns(tx).lease(
            RUN.id,
            "w1",
            now=NOW + hour,
            until=NOW + hour + MINUTE,
        )
        assert EvalRuns(tx).lease(
            RUN.id,
            "w2",
            now=NOW,
            until=NOW + MINUTE,
        )
        assert not EvalRuns(tx).lease(
            RUN.id,
            "w3",
            now=NOW - MINUTE / 2,
            until=NOW + MINUTE / 2,
        )


def test_a_run_that_has_ended_is_not_leased(store: Store) -> None:
    with store.write() as tx:
        for ended in ENDED_STATES:
            EvalRuns(tx).set_state(RUN.id, ended)
            assert not EvalRuns(tx).lease(
                RUN.id,
                "w1",
                now=NOW,
                until=LATER,
            )
            assert EvalRuns(tx).get(RUN.id).lease_owner is None


def test_states_but_running_clear_the_lease_and_failures_are_counted(store: Store) -> None:
    with store.write() as tx:
        EvalRuns(tx).lease(
            RUN.id,
            "w1",
            now=NOW,
            until=LATER,
        )
        EvalRuns(tx).set_state(RUN.id, RunState.RUNNING)
        running = EvalRuns(tx).get(RUN.id)
        EvalRuns(tx).set_state(RUN.id, RunState.FAILED, "exit code 9")
        EvalRuns(tx).set_state(RUN.id, RunState.FAILED, "exit code 9")
        failed = EvalRuns(tx).get(RUN.id)
        with pytest.raises(NotFound):
            EvalRuns(tx).set_state("r_unknown", RunState.DONE)

    assert running.lease_owner == "w1"
    assert failed == replace(
        RUN,
        state=RunState.FAILED,
        failures=2,
        message="exit code 9",
    )


def test_wanting_more_queues_a_run_that_ended_and_never_lowers(store: Store) -> None:
    with store.write() as tx:
        EvalRuns(tx).want(RUN.id, 50)
        assert EvalRuns(tx).get(RUN.id) == RUN
        EvalRuns(tx).set_state(RUN.id, RunState.STOPPED, "decided")
        EvalRuns(tx).want(RUN.id, 200)
        assert EvalRuns(tx).get(RUN.id) == replace(RUN, wanted=200)
        with pytest.raises(NotFound):
            EvalRuns(tx).want("r_unknown", 1)


def test_a_sample_counts_once(store: Store) -> None:
    with store.write() as tx:
        assert EvalRuns(tx).store_sample(SAMPLE)
        assert not EvalRuns(tx).store_sample(replace(SAMPLE, strict=0.0, answer="other"))
        assert EvalRuns(tx).store_sample(replace(SAMPLE, epoch=1))

    with store.read() as tx:
        assert list(EvalRuns(tx).samples(RUN.id)) == [
            SAMPLE,
            replace(SAMPLE, epoch=1),
        ]
        assert EvalRuns(tx).done(RUN.id) == {("i1", 0), ("i1", 1)}


def test_an_equal_run_that_has_not_ended_is_found(store: Store) -> None:
    with store.write() as tx:
        EvalRuns(tx).add(replace(RUN, id="r_2", state=RunState.DONE))
        EvalRuns(tx).add(replace(RUN, id="r_3", state=RunState.RUNNING))
        EvalRuns(tx).add(replace(RUN, id="r_4", target=NEW.id))

    with store.read() as tx:
        assert {run.id for run in EvalRuns(tx).unfinished(RUN.fingerprint)} == {"r_1", "r_3"}


def test_a_dead_owners_runs_are_queued_again(store: Store) -> None:
    with store.write() as tx:
        EvalRuns(tx).lease(
            RUN.id,
            "w1",
            now=NOW,
            until=LATER,
        )
        EvalRuns(tx).set_state(RUN.id, RunState.RUNNING)
        assert list(EvalRuns(tx).release("w2")) == []
        assert list(EvalRuns(tx).release("w1")) == [RUN.id]

    with store.read() as tx:
        assert EvalRuns(tx).get(RUN.id) == RUN
