"""The simple operations on people's labels. `swapproof label` and the page Labels show pairs by
hand.
"""

from typing import Final

from harness.frame.configuration.setting import Range
from harness.frame.operation import DialogTexts, Operation, OperationGroup, Parameter
from harness.frame.people.access import Role
from harness.proposals.context import ProposalsContext
from harness.proposals.labels import label_closing, label_pairs
from harness.proposals.labels.label_progress import LabelProgress
from harness.proposals.labels.labelling import LabelChoice, ShownAnswer

_START: Final = {
    "suite": Parameter(
        meaning="The suite; null for the first suite that people still have to label."
    ),
    "people": Parameter(
        meaning="Names of the people who label; empty for the caller alone.",
        kind=tuple[str, ...],
    ),
}


def _describe_close(_ctx: ProposalsContext, progress: LabelProgress) -> list[str]:
    effect = (
        f"The labelling of suite **{progress.suite}** ends after {progress.labels} labels, and "
        f"its proposal **{progress.proposal}** with it. Missing labels count against the "
        "candidate, so it does not pass."
    )
    use = "Close a labelling that cannot end: a person has left, or the answers were deleted."
    return [effect, use]


CLOSE_LABELLING: Final = Operation(
    use_case=label_closing.close_labelling,
    role=Role.APPROVER,
    words="Close a labelling that cannot end, and its proposal. Missing labels count against "
    "the candidate.",
    endpoint="POST /labellings/{labelling}/close",
    body_text="Closes a labelling, for example because a person has left.",
    done=lambda closed: f"the labelling of {closed.result.suite} is closed",
    dialog=DialogTexts(
        title="Close the labelling",
        button="Close the labelling",
        opener=lambda progress: f"Close {progress.suite} …",
        effect=_describe_close,
        applies=lambda progress: not (progress.ended or progress.closed),
    ),
)
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
            parameters=_START,
        ),
        Operation(
            use_case=label_pairs.plan_labelling,
            role=Role.PROPOSER,
            words="Show the labelling that would start, and how many labels it expects.",
            endpoint="POST /proposals/{proposal}/labellings/plan",
            body_text="Plans a labelling of a proposal's suite. Starts nothing.",
            parameters=_START,
        ),
        CLOSE_LABELLING,
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
