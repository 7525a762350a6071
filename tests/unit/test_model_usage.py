from harness.domain.agents.model_figures import find_price
from harness.domain.routing.target import Price, Provider

PRICE = Price(2.0, 8.0)
PROVIDER = Provider("north", "sim", "http://127.0.0.1:9/v1", prices={"scout": PRICE})


def test_a_price_is_found_by_the_targets_name_with_and_without_its_short_id() -> None:
    providers = {"north": PROVIDER}

    assert find_price(providers, "north/scout") == PRICE
    assert find_price(providers, "north/scout#a1b2c3") == PRICE
    assert find_price(providers, "north/other") is None
    assert find_price(providers, "south/scout") is None
