"""A canary's share is 1 % of the callers, always the same ones."""

import signal

import pytest

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Installation, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import (
    await_phase,
    before_simulator,
    phase,
    propose,
    served_revision,
)
from tests.acceptance.traffic import ask_all

USERS = 3000
# Of so many callers 1 % is 30; a share of 0.3 % or 2.2 % would be seen.
FEWEST = 8
MOST = 65


@pytest.mark.verify
@pytest.mark.req("F3", "F4")
def test_one_percent_of_the_callers_get_the_candidate_also_after_restarts(
    installing: Installing,
) -> None:
    place = installing(
        lambda made: before_simulator(Simulator(made), support={"policy": "lasting"})
    )
    router = place.serve("router")
    control = place.serve("control")
    without_canary = served_revision(place)
    swap = propose(place, "support", "sim/sim-better")
    await_phase(place, swap, "canary")
    eventually(lambda: served_revision(place) > without_canary)
    arms = arms_of(place, [f"caller-{number}" for number in range(USERS)])
    chosen = [user for user, arm in arms.items() if arm == "canary"]
    assert FEWEST <= len(chosen) <= MOST

    others = [user for user, arm in arms.items() if arm == "incumbent"][:200]
    for number in (signal.SIGTERM, signal.SIGKILL):
        router.kill(number)
        control.kill(number)
        router = place.serve("router")
        control = place.serve("control")
        again = arms_of(place, chosen + others)
        assert [user for user, arm in again.items() if arm == "canary"] == chosen
        assert phase(place, swap) == "canary"


def arms_of(place: Installation, users: list[str]) -> dict[str, str]:
    """Which arm answers each of them, asked once."""
    answers = ask_all(place, "support", users)
    assert {answer.status for answer in answers.values()} == {200}
    targets = {"incumbent": "sim/sim-base", "canary": "sim/sim-better"}
    assert all(answer.target == targets[answer.arm] for answer in answers.values())
    return {user: answers[user].arm for user in users}
