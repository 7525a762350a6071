import json
from dataclasses import replace

import pytest

from dashboard.data import frames
from evals.suites.items import Item
from harness.control.evals.recomputation import replay_verdict
from harness.control.proposals import estimate
from harness.control.proposals.submission import ProposalRequest
from harness.domain.evals.verdict import Failed
from harness.domain.routing.target import Target
from harness.report.content import slice_rows
from tests.support.control.control_plane import SmallInstallation, answer

pytestmark = pytest.mark.req("F2", "A7", "F5")
ITEMS = 240


def name_languages(world: SmallInstallation) -> None:
    """Every fourth of 240 items is Danish."""
    settings = world.suites["colours"]
    assert settings.path is not None
    lines = [
        {
            "id": f"colour-{n}",
            "input": f"Colour number {n}?",
            "target": f"c{n}",
            "metadata": {"language": "en" if n % 4 else "da"},
        }
        for n in range(ITEMS)
    ]
    settings.path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    world.suites["colours"] = replace(settings, slices=("language",))


def no_danish(target: Target, item: Item, epoch: int) -> str:
    if target.model == "better" and item.metadata["language"] == "da":
        return "wrong"
    return answer(target, item, epoch)


def test_a_better_candidate_that_speaks_no_danish_fails(world: SmallInstallation) -> None:
    name_languages(world)
    world.script = no_danish

    decided = world.decided("sim/better")

    with world.store.read() as tx:
        verdict = tx.verdicts.get(decided.verdict or "")
    assert isinstance(verdict, Failed)
    assert "worse in a slice, whatever its mean says: language = da" in verdict.reason
    (report,) = verdict.suites
    assert report.delta > 0
    assert replay_verdict(world.context(), verdict.id).agrees
    charts = frames.slices(report)
    assert list(charts) == ["language"]
    assert set(charts["language"]["outcome"]) == {"worse", "kept"}
    shown = {row[1]: row[2] for row in slice_rows(verdict)}
    assert shown == {"language = da": "worse", "language = en": "not shown worse"}


def test_the_estimate_says_which_loss_of_a_slice_is_seen(world: SmallInstallation) -> None:
    name_languages(world)

    (found,) = estimate.estimate_proposal(
        world.context(), ProposalRequest("chat", "sim/better")
    )

    assert {guarded.name: guarded.units for guarded in found.slices} == {
        "language = en": 180,
        "language = da": 60,
    }
    assert found.promotion_from > 200
    texts = " ".join(found.texts)
    assert "slice language = da: a loss of" in texts
    assert f"no promotion before item {found.promotion_from}, for the slices" in texts
