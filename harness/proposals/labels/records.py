"""Records of people's labels: labellings, their draws and the labels. Append-only and signed.

The tables refuse a second labelling of a proposal's suite, a pair that is drawn twice, and a
second label of a person for a draw. Only a skipped pair gets a label later.
"""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from harness.frame.records.columns import at_least, not_blank, one_of, unique_where
from harness.frame.records.record import record
from harness.frame.records.repository import Records
from harness.proposals.labels.labelling import LabelChoice, LabelDraw, Labelling, PairLabel
from harness.providers.records import target
from harness.routing.records.proposals import proposal
from harness.routing.records.runs import eval_run

LABELLING: Final = record(
    Labelling,
    "labelling",
    not_blank("seed"),
    sa.UniqueConstraint("proposal", "suite"),
    sa.Index("ix_labelling_created_at", "created_at", "id"),
    refers={"proposal": proposal, "candidate": target, "run": eval_run},
    signed=True,
)
labelling = LABELLING.table

LABEL_DRAW: Final = record(
    LabelDraw,
    "label_draw",
    at_least("number", 1),
    sa.UniqueConstraint("labelling", "item"),
    key="labelling number",
    refers={"labelling": labelling},
    signed=True,
)
label_draw = LABEL_DRAW.table

IS_GIVEN: Final = sa.text("preference IS NOT NULL")

LABEL: Final = record(
    PairLabel,
    "label",
    one_of("choice", LabelChoice),
    sa.CheckConstraint("preference BETWEEN 0 AND 1", name="preference_share"),
    sa.CheckConstraint("unacceptable BETWEEN -1 AND 1", name="unacceptable_range"),
    sa.CheckConstraint(
        "(preference IS NULL) = (choice = 'skip')"
        " AND (unacceptable IS NULL) = (preference IS NULL)",
        name="skipped_whole",
    ),
    sa.ForeignKeyConstraint(
        ["labelling", "number"], ["label_draw.labelling", "label_draw.number"]
    ),
    unique_where("uq_label_given", IS_GIVEN, "labelling", "number", "person"),
    sa.Index("ix_label_labelling", "labelling", "number", "at"),
    signed=True,
)
label = LABEL.table


class Labellings(Records[Labelling]):
    record = LABELLING
    order = (labelling.c.created_at.desc(), labelling.c.id.desc())
    missing = "there is no labelling {}; `swapproof label ROUTE` starts one"

    def of_proposal(self, proposal_id: str) -> Sequence[Labelling]:
        return self._all(self._select(labelling.c.proposal == proposal_id))

    def newest(self, limit: int) -> Sequence[Labelling]:
        return self._all(self._select().limit(limit))


class LabelDraws(Records[LabelDraw]):
    record = LABEL_DRAW
    order = (label_draw.c.number,)

    def of_labelling(self, labelling_id: str) -> Sequence[LabelDraw]:
        """Returns the draws of a labelling in their order."""
        return self._all(self._select(label_draw.c.labelling == labelling_id))


class Labels(Records[PairLabel]):
    record = LABEL
    order = (label.c.number, label.c.at, label.c.id)

    def of_labelling(self, labelling_id: str) -> Sequence[PairLabel]:
        """Returns the labels and skips of a labelling, by draw."""
        return self._all(self._select(label.c.labelling == labelling_id))
