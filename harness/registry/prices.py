"""Finds the price of a model."""

from collections.abc import Iterable
from dataclasses import replace

from harness.frame.formatting import format_usd
from harness.frame.records.transaction import Transaction
from harness.providers.models import model_figures
from harness.providers.models.catalogue import with_catalogue_prices
from harness.providers.records import DiscoveredModels, Providers
from harness.providers.target import Price, Provider, Target
from harness.routing.context import Context


def find_price(tx: Transaction, target: Target | None) -> Price | None:
    return model_figures.find_price(Providers(tx).all(), target.name) if target else None


def find_list_price(ctx: Context, tx: Transaction, target: Target | None) -> Price | None:
    provider = Providers(tx).all().get(target.provider) if target else None
    if target is None or provider is None:
        return None
    known = fill_prices(ctx, tx, provider, [target.model]).prices
    return find_price(tx, target) or known.get(target.model)


def fill_prices(
    ctx: Context, tx: Transaction, provider: Provider, models: Iterable[str]
) -> Provider:
    """Adds a provider's missing prices, because the router has no catalogue and no lists."""
    names = list(models)
    known = with_catalogue_prices(provider, ctx.catalogue, names)
    listed = [
        DiscoveredModels(tx).find(provider.name, model)
        for model in names
        if model not in known.prices
    ]
    found = {
        offer.model: offer.price
        for offer in listed
        if offer and offer.price and offer.source == provider.api_base
    }
    return replace(known, prices={**known.prices, **found}) if found else known


def describe_price(price: Price | None) -> str:
    if price is None:
        return "an unknown price"
    sent, written = (
        format_usd(price.input_usd_per_mtok),
        format_usd(price.output_usd_per_mtok),
    )
    return f"{sent} in and {written} out per million tokens"
