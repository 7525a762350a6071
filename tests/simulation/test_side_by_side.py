"""The reader of rows decides as the blocks of the router do, on the same requests. Seeded."""

from pathlib import Path

import pytest

from harness.gate.online.reading.block_fold import read_blocks
from harness.gate.online.reading.seals import Watermark
from harness.gate.online.rollout import build_exposure_rule
from tests.support.canary.row_journal import START
from tests.support.canary.side_by_side import SCENES, Comparison, SideBySide
from tests.support.sampling import later, sampled

pytestmark = pytest.mark.req("F3", "F4")

BY_NAME = {scene.name: scene for scene in SCENES}
# These blocks hold other callers in the two forms. The ledger of each router forms its own
# blocks, and the reader forms one block of the callers of both.
OTHER_BLOCKS = {"2 routers", "2 routers, one request a caller"}
# The draws of ranks have the worker's name as their seed. So the two forms rank each value
# among other values, and a rollback by values comes some blocks sooner or later.
OTHER_RANKS = {"slow answers"}
SAME = sorted(BY_NAME.keys() - OTHER_BLOCKS - OTHER_RANKS)
# `make test-all` runs these kinds of rollouts.
SAMPLED = {
    "healthy, later turns",
    "harm of 20 %",
    "harm of 5 %",
    "harm at later turns",
    "hangs",
    "disliked answers",
    "4 workers",
}
# The evidence of ranks differs by so much at most, without a rollback by values.
RANKS = 0.1


def compare(name: str, folder: Path, seed: int = 1) -> Comparison:
    return SideBySide(BY_NAME[name], folder, seed).run()


def assert_rebuilt(found: Comparison) -> None:
    """The rows and the seals alone give the same blocks."""
    rule = build_exposure_rule(found.policy, START, ledger_salt="salt")
    watermark = Watermark(found.store.number, START)
    again = read_blocks("r", rule, found.store.rows, found.seals, watermark)
    assert list(again.blocks) == list(found.row_blocks)


def assert_counted(found: Comparison) -> None:
    """Both forms count each caller once a period, and as never seen once."""
    scene = found.scene
    for blocks in (found.ledger_blocks, found.row_blocks):
        firsts = [block for block in blocks if not block.late_of]
        assert sum(block.units for block in firsts) == scene.callers * scene.days
        new = [block.never_seen for block in firsts]
        assert sum(seen.units for seen in new if seen is not None) == scene.callers


@pytest.mark.parametrize("name", sampled(SAME, SAMPLED))
def test_both_forms_decide_alike_at_any_time_on_nearly_the_same_evidence(
    name: str, tmp_path: Path
) -> None:
    found = compare(name, tmp_path)

    assert found.decisions
    assert found.differences == 0
    ledger = found.ledger_evidence
    rows = found.row_evidence
    for field in ("units", "exposures", "failures", "canary_failures", "missing", "period"):
        assert getattr(rows, field) == getattr(ledger, field), field
    assert rows.tripped is ledger.tripped
    assert rows.outcomes == ledger.outcomes
    assert rows.lost_windows == ledger.lost_windows
    assert rows.log_certificate == pytest.approx(ledger.log_certificate)
    assert rows.log_e == pytest.approx(ledger.log_e, abs=RANKS)
    assert_counted(found)
    assert_rebuilt(found)


@pytest.mark.parametrize(
    "name", ["2 routers", later("2 routers, one request a caller"), later("slow answers")]
)
def test_both_forms_end_alike_if_only_the_order_of_callers_or_the_draws_differ(
    name: str, tmp_path: Path
) -> None:
    found = compare(name, tmp_path)

    last = found.decisions[-1]
    assert last.is_same
    assert found.differences <= 2
    assert found.row_evidence.tripped is found.ledger_evidence.tripped
    assert_counted(found)
    assert_rebuilt(found)
