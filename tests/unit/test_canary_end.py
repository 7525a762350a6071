"""The words for how a canary ended, and the stored reason that they are read from."""

import pytest

from harness.domain.canary.rollout import CanaryEnd, describe_abort, describe_who, find_end

pytestmark = pytest.mark.req("F3")


@pytest.mark.parametrize(
    ("stored", "end", "who"),
    [
        (describe_abort("ben", "why", baking=False), CanaryEnd.ABORTED, "by ben: why"),
        (describe_abort("ben", "why", baking=True), CanaryEnd.TAKEN_BACK, "by ben: why"),
        ("failure_rate: 9 of 100", CanaryEnd.ROLLED_BACK, "failure_rate: 9 of 100"),
        ("aborted upstream", CanaryEnd.ROLLED_BACK, "aborted upstream"),
    ],
)
def test_the_stored_reason_says_which_end_it_was_and_who_brought_it_about(
    stored: str, end: CanaryEnd, who: str
) -> None:
    assert (find_end(stored), describe_who(stored)) == (end, who)
