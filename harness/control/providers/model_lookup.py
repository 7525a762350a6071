"""Looks up models for people, by exact, loose or misspelt names. No other module uses
rapidfuzz.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from harness.control.context import Context
from harness.control.providers import discovery, provider_secrets
from harness.domain.providers import model_match
from harness.domain.providers.catalogue import CatalogueEntry
from harness.domain.providers.model_match import ModelMatch, ModelOffer
from harness.domain.providers.name_resolution import Resolution, resolve_model_name
from harness.domain.providers.oauth_tokens import TOKEN_KEY_NAME
from harness.domain.routing.kill_switch import KillSwitch, active_switches
from harness.store.transaction import Transaction


def list_configured_offers(ctx: Context) -> Sequence[tuple[str, CatalogueEntry]]:
    """Lists what the configured providers offer, by `provider/model`; their own prices win."""
    with ctx.store.read() as tx:
        providers, offers = tx.providers.all(), _list_offers(ctx, tx)
    found = []
    for offer in offers:
        entry = offer.entry or CatalogueEntry(offer.kind, offer.model)
        own = providers[offer.provider].prices.get(offer.model)
        found.append((offer.name, replace(entry, price=own or entry.price)))
    return found


def search_catalogue(
    ctx: Context, words: Sequence[str]
) -> Sequence[tuple[str, CatalogueEntry]]:
    """Lists the catalogue's entries, by `kind/model`, whose names contain every given word."""
    parts = [word.lower() for phrase in words for word in phrase.split()]
    fits = [e for e in ctx.catalogue if all(part in e.name.lower() for part in parts)]
    return [(fit.name, fit) for fit in sorted(fits, key=lambda offer: offer.name)]


LEAST: Final = 80.0  # of 100: one wrong letter in five
LEAST_LETTERS: Final = 4  # shorter words are too often near to another
LEAST_OF_NAMES: Final = 55.0
MOST: Final = 5


class Rapidfuzz:
    """Finds similar names by rapidfuzz, which is loaded where a name is misspelt."""

    def similar_words(self, word: str, among: Collection[str]) -> Sequence[str]:
        from rapidfuzz import fuzz, process  # noqa: PLC0415 - see above

        if len(word) < LEAST_LETTERS:
            return ()
        found = process.extract(
            word, sorted(among), scorer=fuzz.ratio, score_cutoff=LEAST, limit=MOST
        )
        nearest = max((score for _, score, _ in found), default=0.0)
        return tuple(offer for offer, score, _ in found if score == nearest)

    def names(self, name: str, among: Collection[str]) -> Sequence[str]:
        from rapidfuzz import fuzz, process, utils  # noqa: PLC0415 - see above

        found = process.extract(
            name,
            sorted(among),
            scorer=fuzz.token_sort_ratio,
            processor=utils.default_process,
            score_cutoff=LEAST_OF_NAMES,
            limit=MOST,
        )
        return tuple(offer for offer, _, _ in found)


def resolve_model(
    ctx: Context, name: str, *, standing: Sequence[KillSwitch] = ()
) -> Resolution:
    """Finds the provider that takes a name. standing: switches of environment and file."""
    with ctx.store.read() as tx:
        providers = tx.providers.all()
        switches = (*standing, *tx.switches.not_lifted())
        tokens = {
            e.provider
            for e in provider_secrets.list_live_credentials(ctx, tx)
            if e.name == TOKEN_KEY_NAME
        }
        signed_in = tokens & {resolution.provider for resolution in tx.sign_ins.all()}
    # A name belongs to no route: only a switch over all of them says anything about it.
    for_all = [
        switch for switch in active_switches(switches, ctx.clock.now()) if switch.route is None
    ]
    return resolve_model_name(
        name,
        providers,
        catalogue=ctx.catalogue,
        forced=for_all[0].force if for_all else None,
        signed_in=signed_in,
    )


def match_model(
    ctx: Context, name: str, *, providers: Collection[str] | None = None
) -> ModelMatch:
    """Finds the model that somebody means by a name. providers: those that are asked; None for
    all.
    """
    with ctx.store.read() as tx:
        offers = _list_offers(ctx, tx)
    if providers is not None:
        offers = [offer for offer in offers if offer.provider in providers]
    today = ctx.clock.now().date()
    return model_match.match_model(name, offers, likeness=Rapidfuzz(), today=today)


def _list_offers(ctx: Context, tx: Transaction) -> Sequence[ModelOffer]:
    return model_match.list_offers(
        tx.providers.all(),
        ctx.catalogue,
        tx.routing.targets().values(),
        discovery.read_lists(tx),
    )
