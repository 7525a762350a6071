"""Finds a model of the traffic in the catalogue, and the models that could take its place, with
their savings and the requests that they cannot take. Pure.

A price, an end or an ability that the catalogue does not state is unknown.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from harness.app.attach.traffic_survey import NEED_NAMES, ModelTraffic
from harness.frame.formatting import format_usd
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.models.capabilities import Needs, missing_capabilities
from harness.providers.models.catalogue import KINDS, Catalogue, CatalogueEntry
from harness.providers.models.model_ends import KnownEnd, describe_end
from harness.providers.models.model_names import parse_model_name
from harness.providers.models.related_ends import find_base
from harness.providers.models.successors import ALERT_AHEAD, find_successor

MOST_SHOWN: Final = 3
# Names of providers in traces. Sources: OpenTelemetry's `gen_ai.provider.name` and
# `gen_ai.system`, LangSmith's `ls_provider`, OpenInference's `llm.provider`.
_TRACE_NAMES: Final[Mapping[str, str]] = {
    "aws.bedrock": "bedrock",
    "amazon_bedrock": "bedrock",
    "aws": "bedrock",
    "azure.ai.openai": "azure_openai",
    "az.ai.openai": "azure_openai",
    "azure": "azure_openai",
    "gcp.gemini": "gemini",
    "gcp.gen_ai": "gemini",
    "google_genai": "gemini",
    "google": "gemini",
    "gcp.vertex_ai": "vertex",
    "vertexai": "vertex",
    "google_vertexai": "vertex",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "x_ai": "xai",
}
# Words of families that serve a special purpose, and take no plain chat's place.
_SPECIAL: Final = frozenset(
    {
        "audio",
        "chat",
        "codex",
        "computer",
        "cyber",
        "deep",
        "embed",
        "embedding",
        "ft",
        "guard",
        "image",
        "live",
        "moderation",
        "ocr",
        "realtime",
        "research",
        "robotics",
        "safety",
        "search",
        "speech",
        "thinking",
        "transcribe",
        "translate",
        "tts",
        "use",
        "vision",
        "voice",
    }
)
NEWER: Final = "newer of its family"
NAMED: Final = "named by you"
NEXT_CHEAPER: Final = "next cheaper"
CHEAPEST: Final = "cheapest"


@dataclass(frozen=True, slots=True)
class Replacement:
    """A model that could take another's place. Money in US dollars, for the counted requests.

    untaken: the requests that it certainly cannot take, by the ability that it lacks. unstated:
    requests that need an ability that the catalogue does not mention, by ability.
    """

    name: str  # kind/model
    why: str
    end: KnownEnd
    cost_usd: float | None
    saving_usd: float | None  # negative if it costs more
    saving: float | None  # a share of the present cost
    untaken: Mapping[str, int]
    unstated: Mapping[str, int]


def find_entry(traffic: ModelTraffic, catalogue: Catalogue) -> CatalogueEntry | None:
    """Finds a model's entry, by its provider and its name; None if the catalogue has no such
    model, or several.
    """
    kind, model = _find_kind_and_model(traffic)
    return catalogue.find(kind, model) if kind else None


def find_end(traffic: ModelTraffic, catalogue: Catalogue, today: date) -> KnownEnd:
    """Finds when a model ends, by the catalogue. A log tells no provider's list, so without a
    day the end is unknown.
    """
    kind, model = _find_kind_and_model(traffic)
    return describe_end(catalogue.find_end(kind, model, today))


def _find_kind_and_model(traffic: ModelTraffic) -> tuple[str, str]:
    """Finds the catalogue's names of provider and model; no provider if it is unknown."""
    first, _, rest = traffic.model.partition("/")
    if rest and (kind := _find_kind(first)):
        return kind, rest
    if traffic.provider:
        # An unknown provider is a gateway's own name.
        return _find_kind(traffic.provider), traffic.model
    name = find_base(traffic.model.lower()) or traffic.model.lower()
    kinds = [kind for kind in PROVIDER_KINDS.values() if name.startswith(kind.keywords or "\0")]
    return (kinds[0].name if len(kinds) == 1 else ""), traffic.model


def find_named(name: str, catalogue: Catalogue) -> CatalogueEntry | None:
    """Finds the entry of a model that a person names as `provider/model`."""
    provider, _, model = name.partition("/")
    kind = _find_kind(provider)
    return catalogue.find(kind, model) if kind else None


def _find_kind(provider: str) -> str:
    name = provider.lower()
    known = (
        KINDS.get(name) or _TRACE_NAMES.get(name) or (name if name in PROVIDER_KINDS else "")
    )
    return str(known)


def count_cost(traffic: ModelTraffic, entry: CatalogueEntry | None) -> float | None:
    """Returns the price of the counted requests at a model, at its list price without a cache;
    None if it is unknown.

    The length of a request, which changes some prices, is the mean's.
    """
    if entry is None or entry.price is None or not traffic.counted:
        return None
    mean_input = round(traffic.input_tokens / traffic.counted)
    prices = entry.price.for_answer(mean_input)
    if prices is None:
        return None
    return prices.cost_usd(traffic.input_tokens, traffic.output_tokens)


def list_replacements(
    traffic: ModelTraffic,
    entry: CatalogueEntry | None,
    catalogue: Catalogue,
    today: date,
    named: Sequence[CatalogueEntry] = (),
) -> Sequence[Replacement]:
    """Lists what could take a model's place: the named models, or else its successor and
    cheaper models of its provider.
    """
    present_usd = count_cost(traffic, entry)
    if named:
        chosen = [(NAMED, other) for other in named]
    elif entry is None:
        chosen = []
    else:
        chosen = [*_choose(traffic, entry, present_usd, catalogue, today)]
    return [
        _compare(traffic, other, why, present_usd, catalogue, today)
        for why, other in chosen[:MOST_SHOWN]
    ]


def _choose(
    traffic: ModelTraffic,
    entry: CatalogueEntry,
    present_usd: float | None,
    catalogue: Catalogue,
    today: date,
) -> Iterator[tuple[str, CatalogueEntry]]:
    successor = find_successor(entry, catalogue, today)
    if successor is not None:
        yield NEWER, successor
    if present_usd is None:
        return
    prices = [
        (cost_usd, other.model, other)
        for other in _list_newest(catalogue, entry.kind, today)
        if other is not successor
        and other.model != entry.model
        and (cost_usd := count_cost(traffic, other)) is not None
        and cost_usd < present_usd
    ]
    if prices:
        nearest = max(prices, key=lambda price: price[:2])[2]
        cheapest = min(prices, key=lambda price: price[:2])[2]
        yield NEXT_CHEAPER, nearest
        if cheapest is not nearest:
            yield CHEAPEST, cheapest


@dataclass(frozen=True, slots=True)
class CandidateChoice:
    """The candidate whose proof is estimated. name: empty without one. why: why it, or why
    none, with the replacements that were passed over.
    """

    name: str
    why: str


def choose_candidate(
    model: str, present_usd: float | None, replacements: Sequence[Replacement]
) -> CandidateChoice:
    """Chooses the first replacement that is named, or known to cost no more than the model.

    Args:
        model: the name of the model in use.
        present_usd: the cost of its counted requests at the list price; None if it is unknown.
    """
    passed_over: list[str] = []
    for other in replacements:
        price = _describe_price(other, present_usd)
        costs_no_more = other.saving_usd is not None and other.saving_usd >= 0
        if other.why == NAMED or costs_no_more:
            others = f"; not {', not '.join(passed_over)}" if passed_over else ""
            return CandidateChoice(other.name, f"{other.why}, {price}{others}")
        passed_over.append(f"{other.name} ({other.why}), {price}")
    if present_usd is None:
        reason = f"the cost of these requests at {model} is unknown, so no model is cheaper"
    else:
        reason = f"no other model is known to cost as much as {model} or less"
    others = f" ({'; '.join(passed_over)})" if passed_over else ""
    return CandidateChoice("", f"{reason}{others}: name one by --candidate PROVIDER/MODEL")


def _describe_price(other: Replacement, present_usd: float | None) -> str:
    """Compares a replacement's cost with the cost of the model in use. The cost is unknown
    without a price, and without the tokens of a request.
    """
    if other.cost_usd is None:
        return "whose cost for these requests is unknown"
    if other.saving_usd is None or present_usd is None:
        return "and the present cost is unknown"
    if not other.saving_usd:
        return "which costs the same"
    more_or_less = "less" if other.saving_usd > 0 else "more"
    return f"which costs {format_usd(abs(other.saving_usd))} {more_or_less}"


def _list_newest(catalogue: Catalogue, kind: str, today: date) -> Iterable[CatalogueEntry]:
    """Lists the newest model of each family that plain chats can use, without models that end
    soon.
    """
    newest: dict[str, CatalogueEntry] = {}
    for entry in catalogue:
        name = parse_model_name(entry.model)
        ends_soon = catalogue.has_ended(kind, entry.model, today + ALERT_AHEAD)
        is_special = name.preview or not _SPECIAL.isdisjoint(name.words)
        if entry.kind != kind or "chat" not in entry.has or ends_soon or is_special:
            continue
        other = newest.get(entry.family)
        if other is None or parse_model_name(other.model).rank < name.rank:
            newest[entry.family] = entry
    return newest.values()


def _compare(
    traffic: ModelTraffic,
    entry: CatalogueEntry,
    why: str,
    present_usd: float | None,
    catalogue: Catalogue,
    today: date,
) -> Replacement:
    cost_usd = count_cost(traffic, entry)
    saving_usd = None
    if cost_usd is not None and present_usd is not None:
        saving_usd = present_usd - cost_usd
    saving = saving_usd / present_usd if saving_usd is not None and present_usd else None
    return Replacement(
        name=entry.name,
        why=why,
        end=describe_end(catalogue.find_end(entry.kind, entry.model, today)),
        cost_usd=cost_usd,
        saving_usd=saving_usd,
        saving=saving,
        untaken=_count_untaken(traffic, entry),
        unstated=_count_unstated(traffic, entry),
    )


def _count_untaken(traffic: ModelTraffic, entry: CatalogueEntry) -> dict[str, int]:
    untaken: dict[str, int] = {}
    for name in NEED_NAMES:
        need: dict[str, Any] = {name: True}
        words = missing_capabilities(Needs(**need), entry.capabilities)
        if words and traffic.needs[name]:
            untaken[words[0]] = traffic.needs[name]
    window = entry.context_window
    if window is not None and (number := traffic.count_larger(window)):
        untaken[f"a context window of more than {window:,} tokens"] = number
    return untaken


def _count_unstated(traffic: ModelTraffic, entry: CatalogueEntry) -> dict[str, int]:
    return {
        name.replace("_", " "): traffic.needs[name]
        for name in NEED_NAMES
        if traffic.needs[name] and name not in entry.has | entry.lacks
    }


# Families of general models, one for each of three makers, in the order of preference.
_JUDGES: Final = (
    ("anthropic", "claude-sonnet"),
    ("openai", "gpt"),
    ("gemini", "gemini-pro"),
)


def choose_judge(
    compared: Sequence[CatalogueEntry], catalogue: Catalogue, today: date
) -> CatalogueEntry | None:
    """Chooses a judge of another maker than the compared models; None without one.

    A cloud's model has the name of its maker's family, so a family counts as a maker's too.
    """
    for kind, family in _JUDGES:
        maker = family.partition("-")[0]
        if any(entry.kind == kind or entry.family.startswith(maker) for entry in compared):
            continue
        for entry in _list_newest(catalogue, kind, today):
            if entry.family == family:
                return entry
    return None
