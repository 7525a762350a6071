"""Who can be compared at all."""

import pytest

from harness.control.routing import targets
from harness.domain.errors import InputError
from harness.domain.operations.access import SYSTEM
from harness.domain.routing.target import Provider
from harness.domain.settings import TargetSeed
from tests.support.control.control_plane import SmallInstallation


@pytest.mark.req("A7")
def test_a_model_that_speaks_no_chat_is_not_proposed_for_evals_that_would_fail(
    world: SmallInstallation,
) -> None:
    codex = Provider("codex", "openai_codex", "https://chatgpt.com/backend-api/codex")
    targets.put_provider(world.context(), SYSTEM, codex)
    targets.add_target(world.context(), SYSTEM, TargetSeed("codex", "gpt-5-codex"))

    with pytest.raises(InputError, match="suites are run over chat"):
        world.propose("codex/gpt-5-codex")

    with world.store.read() as tx:
        assert not tx.proposals.open()
    assert world.propose("sim/better").route == "chat"


@pytest.mark.req("A7", "B7")
@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
def test_a_model_whose_chats_are_translated_may_be_proposed(
    world: SmallInstallation, kind: str
) -> None:
    other = Provider("other", kind, "https://models.example/v1")
    targets.put_provider(world.context(), SYSTEM, other)

    assert world.propose("other/opus").route == "chat"
