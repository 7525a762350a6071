"""Lists the models that the configured providers offer, and searches the catalogue."""

from collections.abc import Sequence
from dataclasses import replace

from harness.control.context import Context
from harness.domain.providers.catalogue import CatalogueEntry
from harness.domain.providers.discovered_model import DiscoveredModel
from harness.domain.providers.model_match import ModelOffer, list_offers
from harness.domain.routing.target import Target
from harness.domain.suggestions import did_you_mean
from harness.store.transaction import Transaction


def list_configured_offers(ctx: Context) -> Sequence[tuple[str, CatalogueEntry]]:
    with ctx.store.read() as tx:
        providers, offers = tx.providers.all(), read_offers(ctx, tx)
    found = []
    for offer in offers:
        entry = offer.entry or CatalogueEntry(offer.kind, offer.model)
        own = providers[offer.provider].prices.get(offer.model)
        found.append((offer.name, replace(entry, price=own or entry.price)))
    return found


def search_catalogue(
    ctx: Context, words: Sequence[str]
) -> Sequence[tuple[str, CatalogueEntry]]:
    parts = [word.lower() for phrase in words for word in phrase.split()]
    fits = [e for e in ctx.catalogue if all(part in e.name.lower() for part in parts)]
    return [(fit.name, fit) for fit in sorted(fits, key=lambda offer: offer.name)]


def read_offers(ctx: Context, tx: Transaction) -> Sequence[ModelOffer]:
    return list_offers(
        tx.providers.all(),
        ctx.catalogue,
        tx.routing.targets().values(),
        read_lists(tx),
    )


def read_lists(tx: Transaction) -> Sequence[DiscoveredModel]:
    """What all providers listed, each where it is now: nothing from before it moved."""
    known, listed = tx.providers.all(), tx.discovered_models.all()
    return [model for model in listed if model.source == known[model.provider].api_base]


def find_unlisted(tx: Transaction, target: Target) -> str:
    """Says that a provider's list lacks a model; empty where it has it, or no list."""
    names = {one.model for one in read_lists(tx) if one.provider == target.provider}
    if not names or target.model in names:
        return ""
    hint = did_you_mean(target.model, names)
    return f"{target.provider} does not list {target.model} among {len(names)}{hint}"
