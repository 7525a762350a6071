"""Who can be compared at all."""

import pytest

from harness.control import targets
from harness.domain.access import SYSTEM
from harness.domain.errors import InputError
from harness.domain.targets import Provider
from tests.world import World


@pytest.mark.req("A7")
def test_a_model_that_speaks_no_chat_is_not_proposed_for_evals_that_would_fail(
    world: World,
) -> None:
    claude = Provider("claude", "anthropic", "https://api.anthropic.com/v1")
    targets.put_provider(world.context(), SYSTEM, claude)

    with pytest.raises(InputError, match="suites are run over chat"):
        world.propose("claude/opus")

    with world.store.read() as tx:
        assert all(each.provider != "claude" for each in tx.routing.targets().values())
    assert world.propose("sim/better").route == "chat"
