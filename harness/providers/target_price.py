"""The price of a target: known, listed or missing. Pure.

Pages, commands, refusals and the API read the state here, and write it in these words. So two
of them never contradict each other about one target. `registry.targets.load_price` finds the
state, and `registry.registered_providers.set_price` ends a missing price.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from harness.providers.target import Price, Provider, find_price, format_price

# The one command that sets a price. Its arguments are US dollars per million tokens.
PRICE_COMMAND: Final = "swapproof model price {} INPUT OUTPUT"


MOST_NAMED: Final = 2


class PriceState(StrEnum):
    KNOWN = "known"  # stored at the provider; routers, budgets and guardrails use it
    LISTED = "listed"  # in the catalogue or the provider's list; a registered target gets it
    MISSING = "missing"  # a person must set it


@dataclass(frozen=True, slots=True)
class TargetPrice:
    """The price of one target. price: None if it is missing."""

    target: str  # `provider/model`
    price: Price | None
    state: PriceState

    @property
    def text(self) -> str:
        return format_price(self.price)

    @property
    def next_step(self) -> str:
        """The command that sets a missing price; empty for another state."""
        return "" if self.price is not None else advise_price(self.target)


def read_price(
    providers: Mapping[str, Provider],
    target: str,
    listed_price: Price | None = None,
) -> TargetPrice:
    """Returns the price of a target by its name. The provider's own price precedes the list's.

    Args:
        listed_price: of the catalogue or the provider's list; None if they lack it.
    """
    known_price = find_price(providers, target)
    if known_price is not None:
        return TargetPrice(target, known_price, PriceState.KNOWN)
    state = PriceState.MISSING if listed_price is None else PriceState.LISTED
    return TargetPrice(target, listed_price, state)


def list_unpriced(providers: Mapping[str, Provider], names: Iterable[str]) -> list[str]:
    """Lists the targets whose providers have no price for them, each once."""
    return [name for name in dict.fromkeys(names) if find_price(providers, name) is None]


def advise_price(target: str) -> str:
    """Names the command that sets the price of a target."""
    return f"`{PRICE_COMMAND.format(target)}` sets it"


def describe_missing(*targets: str, effect: str = "") -> str:
    """Writes that prices are missing, their effect, and the command that sets them.

    Args:
        effect: a clause such as `, so no saving can be shown`.

    Names at most MOST_NAMED targets.
    """
    hidden_count = len(targets) - MOST_NAMED
    if hidden_count > 0:
        names = f"{', '.join(targets[:MOST_NAMED])} and {hidden_count} more"
    else:
        names = " and ".join(targets)
    step = advise_price(targets[0])
    if len(targets) > 1:
        step = f"`{PRICE_COMMAND.format('PROVIDER/MODEL')}` sets each"
    return f"the price of {names} is unknown{effect}: {step}"
