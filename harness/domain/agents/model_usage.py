"""Model usage is what each model did in one or several sessions, in answers, tokens and money;
`cost_alone` says what the same tokens would have cost on one model. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.domain.routing.target import Price, Provider


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What one model did."""

    target: str  # `provider/model`
    answers: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int  # of the input
    cost_usd: float  # of the answers whose price was known when they came
    unpriced: int = 0  # the other answers


def find_price(providers: Mapping[str, Provider], target: str) -> Price | None:
    """The price of a target, by its name; None where it is not known."""
    name, _, model = target.partition("/")
    provider = providers.get(name)
    if provider is None:
        return None
    # A target with parameters of its own has a short id behind its name.
    return provider.prices.get(model) or provider.prices.get(model.rpartition("#")[0])


def sum_costs(usages: Sequence[ModelUsage]) -> float | None:
    """What all of it cost; None where the price of an answer is not known."""
    is_known = not any(usage.unpriced for usage in usages)
    return sum(usage.cost_usd for usage in usages) if is_known else None


def cost_alone(usages: Iterable[ModelUsage], price: Price | None) -> float | None:
    """What all the answers would have cost at one model's price, with as many tokens as they
    had; None for an unknown price.
    """
    if price is None:
        return None
    return sum(
        price.cost_usd(usage.input_tokens, usage.output_tokens, usage.cached_tokens)
        for usage in usages
    )
