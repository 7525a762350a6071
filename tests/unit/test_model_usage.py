"""What models cost in a session, and what one alone would have."""

from dataclasses import replace

from harness.domain.agents.model_figures import ModelUsage, cost_alone, find_price, sum_costs
from harness.domain.routing.target import Price, Provider

PRICE = Price(2.0, 8.0)
PROVIDER = Provider("north", "sim", "http://127.0.0.1:9/v1", prices={"scout": PRICE})
SCOUT = ModelUsage("north/scout", 3, 3_000_000, 1_000_000, 0, cost_usd=14.0)
OTHER = replace(SCOUT, target="south/sage", cost_usd=0.0, unpriced=3)


def test_a_price_is_found_by_the_targets_name_with_and_without_its_short_id() -> None:
    providers = {"north": PROVIDER}

    assert find_price(providers, "north/scout") == PRICE
    assert find_price(providers, "north/scout#a1b2c3") == PRICE
    assert find_price(providers, "north/other") is None
    assert find_price(providers, "south/scout") is None


def test_an_unknown_price_makes_the_sum_unknown() -> None:
    assert sum_costs([SCOUT, SCOUT]) == 28.0
    assert sum_costs([SCOUT, OTHER]) is None
    assert sum_costs([]) == 0


def test_all_tokens_are_reckoned_at_one_price_or_at_none() -> None:
    assert cost_alone([SCOUT, OTHER], PRICE) == 28.0
    assert cost_alone([SCOUT, OTHER], None) is None
