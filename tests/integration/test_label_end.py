"""A labelling ends before it shows a pair whose label cannot matter any more."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.frame.people.access import Role
from harness.gate.offline.label_evidence import LabelEvidence
from harness.proposals.labels import label_pairs
from harness.proposals.labels.label_progress import LabellingState
from harness.proposals.labels.labelling import LabelChoice
from tests.support.control.control_plane import SmallInstallation

pytestmark = pytest.mark.req("F2", "F13")

ENOUGH = 3  # draws after which any label of the last one suffices


def test_a_pair_whose_label_cannot_matter_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence_of = vars(LabellingState)["evidence"].__get__

    def decide_by_the_draw(state: LabellingState) -> LabelEvidence:
        found: LabelEvidence = evidence_of(state)
        return replace(found, outcome="promote") if found.drawn >= ENOUGH else found

    world = SmallInstallation(tmp_path)
    world.set_up()
    ada = world.person("ada", Role.PROPOSER)
    ctx = world.context()
    labelling = label_pairs.start_labelling(ctx, ada, world.decided().id).id
    monkeypatch.setattr(LabellingState, "evidence", property(decide_by_the_draw))

    for _ in range(ENOUGH - 1):
        pair = label_pairs.show_next_pair(ctx, ada, labelling).pair
        assert pair is not None
        label_pairs.give_label(ctx, ada, labelling, pair.number, LabelChoice.TIE)
    last = label_pairs.show_next_pair(ctx, ada, labelling)

    assert last.pair is None
    assert last.progress.labels == ENOUGH - 1
