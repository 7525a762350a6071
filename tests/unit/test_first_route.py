import pytest

from harness.proposals.first_route import (
    SIMULATED_ROUTE,
    SIMULATOR,
    FirstRoute,
    build_route_entry,
    list_provider_choices,
    suggest_first_route,
)

REAL_PROVIDERS = [name for name in list_provider_choices() if name != SIMULATOR]


@pytest.mark.parametrize("provider", [*REAL_PROVIDERS, "own-server"])
def test_a_real_provider_s_route_starts_without_a_shipped_suite_and_without_a_proposal(
    provider: str,
) -> None:
    suggestion = suggest_first_route(provider)

    assert (suggestion.suite, suggestion.candidate) == ("", "")
    assert suggestion.policy == "default"
    assert "suites" not in build_route_entry(suggestion)
    # The same holds for a caller who gives the provider alone.
    assert FirstRoute(provider).suite == ""


def test_an_owner_s_first_suite_is_suggested_for_a_real_provider_alone() -> None:
    own_suites = ["refunds", "tone"]

    assert suggest_first_route("openai", own_suites).suite == "refunds"
    assert suggest_first_route(SIMULATOR, own_suites) == SIMULATED_ROUTE
    assert SIMULATED_ROUTE.suite == "tickets"
