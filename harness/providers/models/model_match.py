"""Finds the model that a name means among the providers' offers. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import SequenceMatcher
from typing import Final

from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.models.catalogue import Catalogue, CatalogueEntry
from harness.providers.models.discovered_model import DiscoveredModel
from harness.providers.models.model_names import ModelName, parse_model_name
from harness.providers.target import Provider, Target

Words = frozenset[str]

HOSTED: Final = frozenset(
    name for name, kind in PROVIDER_KINDS.items() if kind.group is ProviderGroup.HOSTED
)
NOTHING_OFFERED: Final = (
    "no configured provider offers a model: `swapgate provider add` adds a provider"
)
MOST_NAMED: Final = 5
# Words at the beginning of a name that mean its vendor, not its family.
VENDOR_WORDS: Final[frozenset[Words]] = frozenset(
    frozenset(parse_model_name(word).words)
    for kind in PROVIDER_KINDS.values()
    for word in kind.keywords
)


@dataclass(frozen=True, slots=True)
class ModelOffer:
    provider: str
    kind: str
    model: str
    entry: CatalogueEntry | None = None
    listed: bool = False  # whether the provider lists it

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    def ended(self, today: date) -> bool:
        return self.entry is not None and self.entry.ended(today)


_Read = tuple[ModelOffer, ModelName]


@dataclass(frozen=True, slots=True)
class ModelMatch:
    reason: str  # for people
    found: ModelOffer | None = None
    candidates: tuple[
        ModelOffer, ...
    ] = ()  # offers of different families that fit equally well
    near: tuple[str, ...] = ()  # other versions of the family, if it lacks this version


def list_offers(
    providers: Mapping[str, Provider],
    known: Catalogue,
    targets: Iterable[Target],
    listed: Iterable[DiscoveredModel] = (),
) -> tuple[ModelOffer, ...]:
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
            own_entry = own_word.get((name, model))
            # The catalogue does not know the model, so the provider's own entry counts.
            if entry is None and own_entry is not None:
                window = own_entry.context_window
                entry = CatalogueEntry(provider.kind, model, own_entry.price, window)
            is_listed = own_entry is not None
            found.append(ModelOffer(name, provider.kind, model, entry, is_listed))
    return tuple(found)


def know_models(offers: Iterable[ModelOffer]) -> frozenset[str]:
    """Returns the providers whose models are known: names of other models are refused."""
    return frozenset(
        offer.provider
        for offer in offers
        if offer.listed or (offer.entry and offer.kind in HOSTED)
    )


def match_among(given: str, among: Sequence[ModelOffer], *, today: date) -> ModelMatch:
    """Finds the model that a name means. today: models that have ended come last."""
    if not among or not given.strip():
        return ModelMatch("the name is empty" if among else NOTHING_OFFERED)
    text, here = _at_provider(given.strip(), among)
    low = text.lower()
    if not here:
        return ModelMatch(f"no configured provider is called {_front(text)!r}")
    if exact := [offer for offer in here if low in (offer.model.lower(), offer.name.lower())]:
        return ModelMatch("it is a model's exact name", min(exact, key=_preference))
    read = [(offer, _named(offer)) for offer in here]
    wanted = parse_model_name(text)
    words = frozenset(wanted.words)
    bare = words in VENDOR_WORDS
    best = _having(words, read) if bare else _best_families(words, read)
    if not best:
        return ModelMatch("no model has these words in its name")
    fitting = [(offer, name) for offer, name in best if _is_meant(name, wanted)]
    if not fitting:
        families = ", ".join(sorted({name.family for _, name in best}))
        said = f"{families} has no such version, and a name with a version means only that one"
        ranked = sorted(best, key=lambda one: (one[1].rank, one[0].name), reverse=True)
        return ModelMatch(said, near=tuple(offer.name for offer, _ in ranked[:MOST_NAMED]))
    if bare and (wanted.version or wanted.date):
        fitting = list(_best_families(words, fitting))
    if not (wanted.version or wanted.date):
        fitting = [(o, n) for o, n in fitting if not o.ended(today)] or fitting
    return _decided(fitting, wanted)


def is_short_for(name: str, full: str) -> bool:
    """Whether `full` has all parts of `name`, and `name` is not only numbers."""
    parts = name_parts(name)
    return parts <= name_parts(full) and not all(map(str.isdecimal, parts))


def name_parts(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+|[0-9]+", name.lower()))


def list_nearest(name: str, among: Iterable[str]) -> list[str]:
    """Sorts names by similarity: most shared parts, then letters, then the later version."""
    parts, letters = name_parts(name), SequenceMatcher(b=name.lower(), autojunk=False)

    def likeness(other: str) -> tuple[int, float]:
        letters.set_seq1(other.lower())
        return len(parts & name_parts(other)), letters.ratio()

    return sorted(sorted(among, reverse=True), key=likeness, reverse=True)


def _decided(fitting: Sequence[_Read], wanted: ModelName) -> ModelMatch:
    families: dict[Words, list[_Read]] = {}
    for offer, name in fitting:
        families.setdefault(frozenset(name.words), []).append((offer, name))
    newest = [_newest(family, wanted) for family in families.values()]
    if len(newest) == 1:
        (found,) = newest
        how = "that version" if wanted.version or wanted.date else "the newest"
        return ModelMatch(f"{how} of the family {_named(found).family}", found)
    newest.sort(key=lambda offer: offer.name)
    said = f"{len(newest)} families fit equally well: name one of them"
    return ModelMatch(said, candidates=tuple(newest))


def _newest(several: Sequence[_Read], wanted: ModelName) -> ModelOffer:
    moving = [reading for reading in several if reading[1].latest] if wanted.latest else []
    pool = moving or several
    top = max(name.rank for _, name in pool)
    return min((offer for offer, name in pool if name.rank == top), key=_preference)


def _is_meant(name: ModelName, wanted: ModelName) -> bool:
    version = not wanted.version or name.version == wanted.version
    day = not wanted.date or name.date == wanted.date
    return version and day and (name.preview or not wanted.preview)


def _having(words: Words, read: Sequence[_Read]) -> Sequence[_Read]:
    return [(offer, name) for offer, name in read if words <= frozenset(name.words)]


def _best_families(words: Words, read: Sequence[_Read]) -> Sequence[_Read]:
    having = _having(words, read)
    least = min((len({*name.words}) for _, name in having), default=0)
    return [(offer, name) for offer, name in having if len({*name.words}) == least]


def _at_provider(text: str, among: Sequence[ModelOffer]) -> tuple[str, Sequence[ModelOffer]]:
    """Splits off a provider, kind or vendor in front, by `/`, `:` or a space."""
    for separator in "/: ":
        head, _, rest = text.partition(separator)
        own = [offer for offer in among if head.lower() in (offer.provider.lower(), offer.kind)]
        # "mistral large" is a family, not the model `large` of mistral.
        family = separator == " " and any(head.lower() in _named(offer).words for offer in own)
        if rest.strip() and own and not family:
            return rest.strip(), own
    if not (front := _front(text)):
        return text, among
    # The front may be a vendor at a gateway, so it must stay.
    return text, [offer for offer in among if offer.model.lower().startswith(f"{front}/")]


def _front(text: str) -> str:
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
