"""Builds seeds from the file's `routes`. A seed creates a route that the database lacks.

An existing route is not changed by the file: people change it by use cases, with audit events
(`harness.routing.control.routes`). The functions raise ConfigError with the place of the fault.
They register no target and pin no suite: `harness.app.seed` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from harness.frame.configuration.setting import Declaration, plain_settings
from harness.frame.configuration.source_locations import Document
from harness.frame.errors import InputError
from harness.frame.people.access import check_principal_name
from harness.frame.suggestions import did_you_mean, find_nearest
from harness.providers.models.catalogue import Catalogue
from harness.providers.models.model_match import list_offers
from harness.providers.models.name_resolution import ModelNameQuery
from harness.providers.target import Provider, RequestPatch, Target
from harness.routing.candidate_schedule import CandidateSchedule, check_selection
from harness.routing.route_changes import check_route_name
from harness.routing.route_settings import Overrides, RequestKind, RouteSettings, RouteSuite
from harness.routing.settings import RouteSeed
from harness.routing.table import override_errors

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class TargetEntry(BaseModel):
    """Give `target` (provider/model), or `provider` with `model` or `tier`."""

    model_config = _STRICT
    target: str = ""  # provider/model
    provider: str = ""  # name of the provider; needs `model` or `tier`
    model: str = ""  # the provider's name for the model
    tier: str = Field("", description="one of the provider's `tiers`; instead of `model`")
    parameters: dict[str, object] = {}  # default body fields; a client's values override them
    request_patch: RequestPatch = RequestPatch()  # changes to every request


class FallbackEntry(TargetEntry):
    capable: bool = Field(default=False, description="may answer on a route of high stakes")


class OverridesEntry(BaseModel):
    """Other routes that answer this route's requests, by kind of request (see
    docs/how-to/overrides.md).
    """

    model_config = _STRICT
    # subagent, vision, image, video, embedding: route that answers requests of this kind
    subagent: str = ""
    vision: str = ""
    image: str = ""
    video: str = ""
    embedding: str = ""

    @property
    def given(self) -> Overrides:
        """The routes that are set, by kind of request."""
        routes = {kind: getattr(self, kind.value) for kind in RequestKind}
        return {kind: route for kind, route in routes.items() if route}


def _settings_entry() -> type:
    """Builds the entry of a route's plain settings, in the form of the file."""
    keys = [
        (
            declared.key,
            Annotated[_file_type(declared), Field(description=_meaning(declared))],
            declared.written_default,
        )
        for declared in plain_settings(RouteSettings)
    ]
    return make_dataclass("SettingsEntry", keys, frozen=True, kw_only=True)


def _file_type(declared: Declaration) -> Any:
    if declared.written is not None:
        return declared.written.kind
    return declared.kind | None if declared.optional else declared.kind


def _meaning(declared: Declaration) -> str:
    return (
        f"{declared.meaning} If null: {declared.unset}." if declared.unset else declared.meaning
    )


if TYPE_CHECKING:
    SettingsEntry = object
else:
    SettingsEntry = _settings_entry()


@dataclass(frozen=True, kw_only=True)
class RouteEntry(SettingsEntry):
    incumbent: str | TargetEntry  # the first model: provider/model, or its parts
    # Targets that answer if the incumbent fails, in this order.
    fallbacks: tuple[str | FallbackEntry, ...] = ()
    # Suites that decide the route's swaps: names, or name, role and weight.
    suites: tuple[str | RouteSuite, ...] = ()
    # Models that the route's suites measure on a schedule, in addition to people's proposals.
    candidates: CandidateSchedule | None = None
    # Other routes for some kinds of request.
    overrides: OverridesEntry = field(default_factory=OverridesEntry)


@dataclass(frozen=True, slots=True)
class FileContext:
    """The parts of the file that other sections refer to."""

    document: Document
    providers: Mapping[str, Provider]
    tiers: Mapping[str, Mapping[str, str]]  # the models, by provider and tier
    data_classes: Mapping[str, frozenset[str]]


def route_seed(
    name: str,
    entry: RouteEntry,
    known: FileContext,
) -> RouteSeed:
    """Builds a route from its entry. Raises ConfigError with the place of the fault."""
    at = partial(known.document.at, "routes", name)
    with at():
        check_route_name(name)
        check_principal_name(name)
    fallbacks = []
    for index, value in enumerate(entry.fallbacks):
        with at("fallbacks", index):
            fallbacks.append(_target(value, name, known))
    with at("incumbent"):
        incumbent = _target(entry.incumbent, name, known)
    with at("candidates"):
        if entry.candidates is not None:
            check_selection(entry.candidates)
    capable = tuple(
        target.id
        for target, fallback in zip(fallbacks, entry.fallbacks, strict=True)
        if isinstance(fallback, FallbackEntry) and fallback.capable
    )
    plain = {}
    for declared in plain_settings(RouteSettings):
        with at(declared.key):
            plain[declared.name] = declared.read(getattr(entry, declared.key))
    settings = RouteSettings(
        **plain,
        suites=tuple(RouteSuite(s) if isinstance(s, str) else s for s in entry.suites),
        capable=capable,
        candidates=entry.candidates,
        overrides=entry.overrides.given,
    )
    with at("data_class"):
        if settings.data_class and settings.data_class not in known.data_classes:
            hint = did_you_mean(settings.data_class, known.data_classes)
            raise InputError(f"`data_classes` has no {settings.data_class!r}{hint}")
    return RouteSeed(name, incumbent, tuple(fallbacks), settings)


def check_overrides(routes: Mapping[str, RouteSeed], known: FileContext) -> None:
    """Checks the overrides of all routes against one another. Raises ConfigError."""
    carried = {name: route.settings.data_class for name, route in routes.items()}
    for name, route in routes.items():
        for kind, error in override_errors(
            name, route.settings.overrides, carried, known.data_classes
        ):
            raise known.document.error(("routes", name, "overrides", kind.value), error)


def _target(
    entry: str | TargetEntry,
    route: str,
    known: FileContext,
) -> Target:
    """Parses a target.

    If only a provider is named, the target is the model that the provider's `tiers` lists under
    the route's name. Raises InputError for an incomplete or contradictory entry.

    route: the route's name.
    """
    tiers = known.tiers
    if isinstance(entry, str):
        if entry in tiers:
            return Target(entry, _of_tier(entry, route, tiers))
        return target_seed(entry, known.providers)
    given = [
        bool(entry.target),
        bool(entry.model),
        bool(entry.tier),
    ]
    if sum(given) != 1 or bool(entry.target) == bool(entry.provider):
        raise InputError("give `provider` with `model` or `tier`, or `target: provider/model`")
    if entry.target:
        named = target_seed(entry.target, known.providers)
    elif entry.tier:
        named = Target(entry.provider, _of_tier(entry.provider, entry.tier, tiers))
    else:
        named = Target(entry.provider, entry.model)
    return Target(named.provider, named.model, entry.parameters, entry.request_patch)


def _of_tier(
    provider: str,
    tier: str,
    tiers: Mapping[str, Mapping[str, str]],
) -> str:
    """Returns the model of a provider's tier. Raises InputError with the nearest tier."""
    known = tiers.get(provider, {})
    if tier not in known:
        raise InputError(
            f"provider {provider!r} has no tier {tier!r}{did_you_mean(tier, known)}. Name "
            f"its model under providers.{provider}.tiers"
        )
    return known[tier]


def target_seed(name: str, providers: Mapping[str, Provider] = MappingProxyType({})) -> Target:
    """Parses `provider/model`. Raises InputError, which suggests the nearest model."""
    provider, slash, model = name.partition("/")
    if not (slash and provider and model):
        offers = list_offers(providers, Catalogue(), ())
        near = ModelNameQuery(name, providers, offers).resolve().target
        near = near or find_nearest(name, (offer.name for offer in offers))
        hint = f"did you mean {near!r}?" if near else "e.g. openai/gpt-5"
        raise InputError(f"{name!r} is not a target: write provider/model; {hint}")
    return Target(provider, model)
