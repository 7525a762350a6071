"""The simple operations on people's labels. `swapgate label` and the page Labels show pairs by
hand.
"""

from typing import Final

from harness.frame.configuration.setting import Range
from harness.frame.operation import Operation, OperationGroup, Parameter
from harness.frame.people.access import Role
from harness.proposals.labels import label_pairs
from harness.proposals.labels.labelling import LabelChoice, ShownAnswer

LABELS: Final = OperationGroup(
    command="label",
    words="Labels: which of two answers people prefer.",
    operations=(
        Operation(
            use_case=label_pairs.list_labellings,
            role=Role.VIEWER,
            words="List the newest labellings, without the evidence of those that go on.",
            endpoint="GET /labellings",
        ),
        Operation(
            use_case=label_pairs.load_progress,
            role=Role.VIEWER,
            words="Show a labelling, without its evidence before its end.",
            endpoint="GET /labellings/{labelling}",
            name="get_labelling",
        ),
        Operation(
            use_case=label_pairs.start_labelling,
            role=Role.PROPOSER,
            words="Fix the pairs, the people and the claim of a labelling.",
            endpoint="POST /proposals/{proposal}/labellings",
            body_text="Starts a labelling of a proposal's suite, after the candidate's evals.",
            status=201,
            parameters={
                "suite": Parameter(meaning="The suite; null for the proposal's only suite."),
                "people": Parameter(
                    meaning="Names of the people who label; empty for the caller alone.",
                    kind=tuple[str, ...],
                ),
                "traffic": Parameter(
                    meaning="Whether the claim is about the traffic of the draw, instead of "
                    "these pairs."
                ),
            },
        ),
        Operation(
            use_case=label_pairs.show_next_pair,
            role=Role.PROPOSER,
            words="Show the caller's next pair, blind and in random order.",
            endpoint="POST /labellings/{labelling}/next",
            body_text="Asks for the next pair, or for a skipped pair again.",
            parameters={"skipped": Parameter(meaning="Whether to show skipped pairs again.")},
        ),
        Operation(
            use_case=label_pairs.give_label,
            role=Role.PROPOSER,
            words="Store the caller's preference about a pair. It never changes.",
            endpoint="POST /labellings/{labelling}/labels",
            body_text="A label of a pair that was shown to the caller.",
            status=201,
            parameters={
                "number": Parameter(meaning="The pair's number.", range=Range(1, 1_000_000)),
                "choice": Parameter(meaning="The better answer.", kind=LabelChoice),
                "unacceptable": Parameter(
                    meaning="The answers that no user should get.",
                    kind=set[ShownAnswer],
                ),
            },
        ),
    ),
)
