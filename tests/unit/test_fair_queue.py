from dataclasses import replace

from harness.gate.run import RunState
from harness.operations.control_jobs import fair_order
from harness.proposals.eval_queue import QueuedRun
from tests.support.store.records import PLAIN_RUN


def queued(
    run: str,
    *proposals: str,
    position: int = 0,
    leased: bool = False,
) -> QueuedRun:
    eval_run = replace(PLAIN_RUN, id=run, state=RunState.QUEUED)
    return QueuedRun(
        eval_run,
        proposals,
        leased=leased,
        position=position,
    )


def test_proposals_take_turns_and_one_with_runs_at_work_waits_for_the_others() -> None:
    queue = [
        queued("a1", "a", position=1),
        queued("a2", "a", position=2),
        queued("a3", "a", position=3),
        queued("b1", "b", position=4),
        queued("shared", "b", "a", position=5),
        queued("by hand", position=6),
        queued("held", "b"),
    ]
    ordered = [run.id for run in fair_order(queue)]
    assert ordered == ["a1", "b1", "a2", "shared", "a3", "by hand"]
    at_work = [
        queued("a0", "a", leased=True),
        queued("a00", "a", leased=True),
    ]
    ordered = [run.id for run in fair_order([*queue, *at_work])]
    assert ordered == ["b1", "shared", "a1", "a2", "a3", "by hand"]
