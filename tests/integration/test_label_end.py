"""A labelling ends before it shows a pair whose label cannot matter any more."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.frame.people.access import Role
from harness.gate.offline import people_claims
from harness.gate.offline.label_evidence import (
    DrawnPair,
    LabelEvidence,
    PairBlock,
    judge_labels,
)
from harness.gate.offline.label_plan import LabelDesign
from harness.proposals.labels import label_pairs, label_progress
from harness.proposals.labels.labelling import LabelChoice
from tests.support.control.control_plane import SmallInstallation

pytestmark = pytest.mark.req("F2", "F13")

ENOUGH = 3  # draws after which any label of the last one suffices


def test_a_pair_whose_label_cannot_matter_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decide_by_the_draw(
        blocks: Sequence[PairBlock], drawn: Sequence[DrawnPair], design: LabelDesign
    ) -> LabelEvidence:
        found = judge_labels(blocks, drawn, design)
        return replace(found, outcome="promote") if found.drawn >= ENOUGH else found

    world = SmallInstallation(tmp_path)
    world.set_up()
    ada = world.person("ada", Role.PROPOSER)
    ctx = world.context()
    labelling = label_pairs.start_labelling(ctx, ada, world.decided().id).id
    monkeypatch.setattr(label_progress, "judge_labels", decide_by_the_draw)
    monkeypatch.setattr(people_claims, "judge_labels", decide_by_the_draw)

    for _ in range(ENOUGH - 1):
        pair = label_pairs.show_next_pair(ctx, ada, labelling).pair
        assert pair is not None
        label_pairs.give_label(ctx, ada, labelling, pair.number, LabelChoice.TIE)
    last = label_pairs.show_next_pair(ctx, ada, labelling)

    assert last.pair is None
    assert last.progress.labels == ENOUGH - 1
