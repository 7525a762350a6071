"""The catalogue as people look at it: what configured providers offer, and what there is."""

from collections.abc import Sequence
from dataclasses import replace

from harness.control.context import Context
from harness.domain.providers.catalogue import CatalogueEntry
from harness.domain.providers.model_match import list_offers as offers


def list_offers(ctx: Context) -> Sequence[tuple[str, CatalogueEntry]]:
    """All that the configured providers offer, by `provider/model`; their own prices win."""
    with ctx.store.read() as tx:
        providers = tx.providers.all()
        there = offers(providers, ctx.catalogue, tx.routing.targets().values())
    found = []
    for each in there:
        entry = each.entry or CatalogueEntry(each.kind, each.model)
        own = providers[each.provider].prices.get(each.model)
        found.append((each.name, replace(entry, price=own or entry.price)))
    return found


def search_catalogue(
    ctx: Context, words: Sequence[str]
) -> Sequence[tuple[str, CatalogueEntry]]:
    """Of the whole catalogue, by `kind/model`, those that have all the words in their names."""
    parts = [word.lower() for each in words for word in each.split()]
    fits = [e for e in ctx.catalogue if all(part in e.name.lower() for part in parts)]
    return [(each.name, each) for each in sorted(fits, key=lambda each: each.name)]
