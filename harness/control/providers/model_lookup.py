"""Looks up models for people, by exact, loose or misspelt names. No other module uses
rapidfuzz.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice, product
from typing import Final

from harness.control.context import Context
from harness.control.providers import provider_secrets
from harness.domain.providers.catalogue import Catalogue, CatalogueEntry
from harness.domain.providers.discovered_model import DiscoveredModel
from harness.domain.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.domain.providers.model_names import ModelName, parse_model_name
from harness.domain.providers.name_resolution import Resolution, resolve_model_name
from harness.domain.providers.oauth_tokens import TOKEN_KEY_NAME
from harness.domain.routing.kill_switch import Force, KillSwitch, active_switches
from harness.domain.routing.target import Provider, Target
from harness.store.transaction import Transaction

Words = frozenset[str]

NOTHING_OFFERED: Final = (
    "no configured provider offers a model: `swapgate provider add` adds a provider"
)
MAX_SUGGESTIONS: Final = 5
# What a name begins with that says who makes it, and not which family.
VENDOR_WORDS: Final[frozenset[Words]] = frozenset(
    frozenset(parse_model_name(word).words)
    for kind in PROVIDER_KINDS.values()
    for word in kind.keywords
)
MAX_READINGS: Final = 32  # of a name with several words misspelt


@dataclass(frozen=True, slots=True)
class ModelOffer:
    provider: str
    kind: str
    model: str
    entry: CatalogueEntry | None = None  # what is known of it, None for nothing

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    def ended(self, today: date) -> bool:
        return self.entry is not None and self.entry.ended(today)


@dataclass(frozen=True, slots=True)
class ModelMatch:
    asked: str
    reason: str  # in words
    found: ModelOffer | None = None  # the one that is meant
    candidates: tuple[ModelOffer, ...] = ()  # of different families that fit equally well
    near: tuple[str, ...] = ()  # names to choose from where nothing fits


def list_offers(
    providers: Mapping[str, Provider],
    known: Catalogue,
    targets: Iterable[Target],
    listed: Iterable[DiscoveredModel] = (),
) -> tuple[ModelOffer, ...]:
    """Lists the catalogue's models of each provider's kind, those that its settings name,
    registered targets, and what the providers listed. Persons' accounts are never matched.
    """
    own_word = {(model.provider, model.model): model for model in listed}
    used: dict[str, set[str]] = {}
    for owner, model in (*((target.provider, target.model) for target in targets), *own_word):
        used.setdefault(owner, set()).add(model)
    found = []
    for name, provider in sorted(providers.items()):
        kind = PROVIDER_KINDS.get(provider.kind)
        if kind is not None and kind.group is ProviderGroup.OAUTH:
            continue
        of_kind = {e.model for e in known if e.kind == provider.kind and ":" not in e.model[:4]}
        own = {*provider.models, *provider.prices, *used.get(name, ())}
        for model in sorted(of_kind | own):
            entry = known.find(provider.kind, model)
            # A server's own word, where no catalogue knows the model.
            if entry is None and (own_entry := own_word.get((name, model))):
                window = own_entry.context_window
                entry = CatalogueEntry(provider.kind, model, own_entry.price, window)
            found.append(ModelOffer(name, provider.kind, model, entry))
    return tuple(found)


def match_among(given: str, among: Sequence[ModelOffer], *, today: date) -> ModelMatch:
    """Finds the model that is meant. today: a family's newest has not ended, if one has not."""
    if not among or not given.strip():
        return ModelMatch(given, "the name is empty" if among else NOTHING_OFFERED)
    text, here = _at_provider(given.strip(), among)
    low = text.lower()
    if not here:
        return _nothing(given, f"no configured provider is called {_front(text)!r}", among)
    if exact := [offer for offer in here if low in (offer.model.lower(), offer.name.lower())]:
        return ModelMatch(given, "it is a model's exact name", min(exact, key=_preference))
    read = [(offer, _named(offer)) for offer in here]
    wanted = parse_model_name(text)
    readings = _readings(wanted.words, {w for _, name in read for w in name.words})
    bare = any(reading in VENDOR_WORDS for reading in readings)
    best = _all_families(readings, read) if bare else _best_families(readings, read)
    if not best:
        return _nothing(given, "no model has these words in its name", here)
    fitting = [(offer, name) for offer, name in best if _is_meant(name, wanted)]
    if not fitting:
        families = ", ".join(sorted({name.family for _, name in best}))
        said = f"there is no such version of {families}, and another one is not meant"
        ranked = sorted(best, key=lambda one: (one[1].rank, one[0].name), reverse=True)
        newest = tuple(offer.name for offer, _ in ranked[:MAX_SUGGESTIONS])
        return ModelMatch(given, said, near=newest)
    if bare and (wanted.version or wanted.date):
        fitting = list(_best_families(readings, fitting))
    if not (wanted.version or wanted.date):
        fitting = [(o, n) for o, n in fitting if not o.ended(today)] or fitting
    return _decided(given, fitting, wanted)


def _decided(
    given: str, fitting: Sequence[tuple[ModelOffer, ModelName]], wanted: ModelName
) -> ModelMatch:
    families: dict[Words, list[tuple[ModelOffer, ModelName]]] = {}
    for offer, name in fitting:
        families.setdefault(frozenset(name.words), []).append((offer, name))
    newest = [_newest(family, wanted) for family in families.values()]
    if len(newest) == 1:
        (found,) = newest
        how = "that version" if wanted.version or wanted.date else "the newest"
        return ModelMatch(given, f"{how} of the family {_named(found).family}", found)
    newest.sort(key=lambda offer: offer.name)
    said = f"{len(newest)} families fit equally well: say which one is meant"
    return ModelMatch(given, said, candidates=tuple(newest))


def _newest(several: Sequence[tuple[ModelOffer, ModelName]], wanted: ModelName) -> ModelOffer:
    moving = [reading for reading in several if reading[1].latest] if wanted.latest else []
    pool = moving or several
    top = max(name.rank for _, name in pool)
    return min((offer for offer, name in pool if name.rank == top), key=_preference)


def _is_meant(name: ModelName, wanted: ModelName) -> bool:
    """What the asked name says, it says literally."""
    version = not wanted.version or name.version == wanted.version
    day = not wanted.date or name.date == wanted.date
    return version and day and (name.preview or not wanted.preview)


def _best_families(
    readings: Iterable[Words], read: Sequence[tuple[ModelOffer, ModelName]]
) -> Sequence[tuple[ModelOffer, ModelName]]:
    """Offers of the families that have all words of a reading, and the fewest others."""
    fits: dict[Words, int] = {}
    for words in readings:
        for family in {frozenset(name.words) for _, name in read}:
            if words <= family:
                extra = len(family) - len(words)
                fits[family] = min(extra, fits.get(family, extra))
    least = min(fits.values(), default=0)
    best = {family for family, extra in fits.items() if extra == least}
    return [(offer, name) for offer, name in read if frozenset(name.words) in best]


def _all_families(
    readings: Iterable[Words], read: Sequence[tuple[ModelOffer, ModelName]]
) -> Sequence[tuple[ModelOffer, ModelName]]:
    each_word = [*readings]
    return [(o, name) for o, name in read if any(w <= frozenset(name.words) for w in each_word)]


def _readings(words: Sequence[str], known: Collection[str]) -> list[Words]:
    """Reads each word as a known one, or a misspelling; empty when a word is neither."""
    if not words:
        # A version or a date alone: every family may have it.
        return [frozenset()]
    choices = [[word] if word in known else list(_similar_words(word, known)) for word in words]
    return [frozenset(reading) for reading in islice(product(*choices), MAX_READINGS)]


def _at_provider(text: str, among: Sequence[ModelOffer]) -> tuple[str, Sequence[ModelOffer]]:
    """Splits off a provider or kind in front, by `/`, `:` or a space. Of another one in front
    only the models of that vendor are left.
    """
    for separator in "/: ":
        head, _, rest = text.partition(separator)
        own = [offer for offer in among if head.lower() in (offer.provider.lower(), offer.kind)]
        # "mistral large" is a family, and not the model `large` of mistral.
        family = separator == " " and any(head.lower() in _named(offer).words for offer in own)
        if rest.strip() and own and not family:
            return rest.strip(), own
    if not (front := _front(text)):
        return text, among
    # It may be a vendor at a gateway, and is never left out.
    return text, [offer for offer in among if offer.model.lower().startswith(f"{front}/")]


def _front(text: str) -> str:
    """What asks for a provider, a kind or a vendor; empty where nothing does."""
    kind, colon, _ = text.lower().partition(":")
    if colon and kind in PROVIDER_KINDS:
        return kind
    vendor, slash, _ = text.lower().partition("/")
    return vendor if slash else ""


def _named(offer: ModelOffer) -> ModelName:
    name = parse_model_name(offer.model)
    if offer.entry is None or not offer.entry.own_family:
        return name
    words = tuple(offer.entry.own_family.lower().split("-"))
    return ModelName(words, name.version, name.date, name.preview, name.latest)


def _preference(offer: ModelOffer) -> tuple[bool, str, int, str]:
    """Orders equal offers: the model's maker, the provider's name, then the shortest id."""
    kind = PROVIDER_KINDS.get(offer.kind)
    low = offer.model.rpartition("/")[2].lower()
    maker = kind is not None and any(low.startswith(word) for word in kind.keywords)
    return not maker, offer.provider, len(offer.model), offer.model


def _nothing(given: str, reason: str, here: Sequence[ModelOffer]) -> ModelMatch:
    by_model = {offer.model: offer for offer in reversed(here)}
    near = _similar_names(given, by_model)
    return ModelMatch(given, reason, near=tuple(by_model[model].name for model in near))


def list_configured_offers(ctx: Context) -> Sequence[tuple[str, CatalogueEntry]]:
    """Lists what the configured providers offer, by `provider/model`; their own prices win."""
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
    """Lists the catalogue's entries, by `kind/model`, whose names contain every given word."""
    parts = [word.lower() for phrase in words for word in phrase.split()]
    fits = [e for e in ctx.catalogue if all(part in e.name.lower() for part in parts)]
    return [(fit.name, fit) for fit in sorted(fits, key=lambda offer: offer.name)]


LEAST: Final = 80.0  # of 100: one wrong letter in five
LEAST_LETTERS: Final = 4  # shorter words are too often near to another
LEAST_OF_NAMES: Final = 55.0


def resolve_model(
    ctx: Context, name: str, *, standing: Sequence[KillSwitch] = ()
) -> Resolution:
    """Finds the provider that takes a name. standing: switches of environment and file."""
    with ctx.store.read() as tx:
        switches = (*standing, *tx.switches.not_lifted())
        # A name belongs to no route: only a switch over all of them says anything about it.
        active = active_switches(switches, ctx.clock.now())
        forced = [s.force for s in active if s.route is None and not s.force.avoids]
        return apply_rules(ctx, tx, name, forced=forced[0] if forced else None)


def apply_rules(
    ctx: Context,
    tx: Transaction,
    name: str,
    *,
    forced: Force | None = None,
    among: Collection[str] | None = None,
) -> Resolution:
    """Applies the rules of `name_resolution`. among: providers that may take it; None for all.
    forced: by a switch. A switch says what answers for now, and not what a name means.
    """
    tokens = {
        e.provider
        for e in provider_secrets.list_live_credentials(tx)
        if e.name == TOKEN_KEY_NAME
    }
    providers = tx.providers.all()
    return resolve_model_name(
        name,
        {n: p for n, p in providers.items() if among is None or n in among},
        catalogue=ctx.catalogue,
        forced=forced,
        signed_in=tokens & {resolution.provider for resolution in tx.sign_ins.all()},
    )


def match_model(ctx: Context, name: str) -> ModelMatch:
    """Finds the model that somebody means by a name, among all that are offered."""
    with ctx.store.read() as tx:
        offers = read_offers(ctx, tx)
    return match_among(name, offers, today=ctx.clock.now().date())


def find_near(ctx: Context, tx: Transaction, name: str) -> Sequence[str]:
    """Lists the routes and models with similar names, the nearest first."""
    names = {offer.name for offer in read_offers(ctx, tx)}
    return _similar_names(name, names | set(tx.routing.table().routes), least=0.0, most=20)


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


def _similar_words(word: str, among: Collection[str]) -> Sequence[str]:
    """Lists the equally near words that this one may be a misspelling of."""
    # Loaded where a name is misspelt.
    from rapidfuzz import fuzz, process  # noqa: PLC0415 - see above

    if len(word) < LEAST_LETTERS:
        return ()
    found = process.extract(
        word, sorted(among), scorer=fuzz.ratio, score_cutoff=LEAST, limit=MAX_SUGGESTIONS
    )
    nearest = max((score for _, score, _ in found), default=0.0)
    return tuple(offer for offer, score, _ in found if score == nearest)


def _similar_names(
    name: str,
    among: Collection[str],
    *,
    least: float = LEAST_OF_NAMES,
    most: int = MAX_SUGGESTIONS,
) -> Sequence[str]:
    """Lists a few similar names, the nearest first, for the caller to choose from."""
    from rapidfuzz import fuzz, process, utils  # noqa: PLC0415 - see above

    found = process.extract(
        name,
        sorted(among),
        scorer=fuzz.token_sort_ratio,
        processor=utils.default_process,
        score_cutoff=least,
        limit=most,
    )
    return tuple(offer for offer, _, _ in found)
