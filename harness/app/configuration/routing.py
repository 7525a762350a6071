"""Builds seeds from the file's `routes`. A seed creates a route that the database lacks.

The file does not change an existing route: people change it by use cases, with audit events
(`harness.routing.control.routes`). The functions raise ConfigError with the place of the fault.
`harness.app.seed` registers the targets and pins the suites.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, make_dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from harness.frame.configuration.setting import Declaration, plain_settings, setting
from harness.frame.configuration.setting_values import read_setting
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
from harness.routing.route_settings import (
    Overrides,
    RequestKind,
    RequestTrait,
    RouteSettings,
    RouteSuite,
)
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
    """Other routes that answer some of this route's requests (see docs/how-to/overrides.md)."""

    model_config = _STRICT
    # subagent, vision, image, video, embedding: route that answers requests of this kind
    subagent: str = ""
    vision: str = ""
    image: str = ""
    video: str = ""
    embedding: str = ""
    # tools, no_tools: route that answers requests with tools, or without
    tools: str = ""
    no_tools: str = ""
    # chat, responses, messages: route that answers requests at this endpoint
    chat: str = ""
    responses: str = ""
    messages: str = ""
    # Routes by a header with its literal value: {"x-team: billing": NAME}.
    headers: dict[str, str] = {}

    @property
    def chosen(self) -> Overrides:
        """The routes that are set, by predicate."""
        names = (*RequestKind, *RequestTrait)
        routes = {name.value: getattr(self, name.value) for name in names}
        return {name: route for name, route in (routes | self.headers).items() if route}


def build_settings_entry(record: type) -> type:
    """Builds the entry of a record's plain settings, in the form of the file."""
    keys = [
        (declared.key, _choose_file_type(declared), setting(declared.written_default, declared))
        for declared in plain_settings(record)
    ]
    return make_dataclass("SettingsEntry", keys, frozen=True, kw_only=True)


def _choose_file_type(declared: Declaration) -> Any:
    if declared.written is not None:
        return declared.written.kind
    return declared.kind | None if declared.optional else declared.kind


if TYPE_CHECKING:
    SettingsEntry = object
else:
    SettingsEntry = build_settings_entry(RouteSettings)


@dataclass(frozen=True, kw_only=True)
class RouteEntry(SettingsEntry):
    incumbent: str | TargetEntry  # the first model: provider/model, or its parts
    # Targets that answer if the incumbent fails, in this order.
    fallbacks: tuple[str | FallbackEntry, ...] = ()
    # Suites that decide the route's swaps: names, or name, role and weight.
    suites: tuple[str | RouteSuite, ...] = ()
    # Models that the route's suites measure on a schedule, in addition to people's proposals.
    candidates: CandidateSchedule | None = None
    # Other routes for some requests, by kind, trait or header.
    overrides: OverridesEntry = field(default_factory=OverridesEntry)


@dataclass(frozen=True, slots=True)
class FileContext:
    """The parts of the file that other sections refer to."""

    document: Document
    providers: Mapping[str, Provider]
    tiers: Mapping[str, Mapping[str, str]]  # the models, by provider and tier
    data_classes: Mapping[str, frozenset[str]]


def read_settings(
    record: type, entry: object, at: Callable[[str], AbstractContextManager[None]]
) -> dict[str, Any]:
    """Reads the plain settings of an entry, by name.

    Args:
        at: opens a block whose faults get the place of a key.
    """
    settings = {}
    for declared in plain_settings(record):
        with at(declared.key):
            settings[declared.name] = read_setting(declared, getattr(entry, declared.key))
    return settings


def build_route_seed(
    name: str,
    entry: RouteEntry,
    file_context: FileContext,
) -> RouteSeed:
    """Builds a route from its entry. Raises ConfigError with the place of the fault."""
    at = partial(file_context.document.at, "routes", name)
    with at():
        check_route_name(name)
        check_principal_name(name)
    fallbacks = []
    for index, value in enumerate(entry.fallbacks):
        with at("fallbacks", index):
            fallbacks.append(_parse_target(value, name, file_context))
    with at("incumbent"):
        incumbent = _parse_target(entry.incumbent, name, file_context)
    with at("candidates"):
        if entry.candidates is not None:
            check_selection(entry.candidates)
    capable = tuple(
        target.id
        for target, fallback in zip(fallbacks, entry.fallbacks, strict=True)
        if isinstance(fallback, FallbackEntry) and fallback.capable
    )
    settings = RouteSettings(
        **read_settings(RouteSettings, entry, at),
        suites=tuple(RouteSuite(s) if isinstance(s, str) else s for s in entry.suites),
        capable=capable,
        candidates=entry.candidates,
        overrides=entry.overrides.chosen,
    )
    with at("data_class"):
        if settings.data_class and settings.data_class not in file_context.data_classes:
            hint = did_you_mean(settings.data_class, file_context.data_classes)
            raise InputError(f"`data_classes` has no {settings.data_class!r}{hint}")
    return RouteSeed(name, incumbent, tuple(fallbacks), settings)


def check_overrides(routes: Mapping[str, RouteSeed], file_context: FileContext) -> None:
    """Checks the overrides of all routes against one another. Raises ConfigError."""
    data_class_by_route = {name: route.settings.data_class for name, route in routes.items()}
    for name, route in routes.items():
        for kind, error in override_errors(
            name, route.settings.overrides, data_class_by_route, file_context.data_classes
        ):
            raise file_context.document.error(("routes", name, "overrides", kind), error)


def _parse_target(
    entry: str | TargetEntry,
    route: str,
    file_context: FileContext,
) -> Target:
    """Parses a target.

    If the entry names only a provider, the target is the model that the provider's `tiers`
    lists under the route's name. Raises InputError for an incomplete or contradictory entry.

    Args:
        route: the route's name.
    """
    tiers = file_context.tiers
    if isinstance(entry, str):
        if entry in tiers:
            return Target(entry, _find_tier_model(entry, route, tiers))
        return parse_target_seed(entry, file_context.providers)
    alternatives = [
        bool(entry.target),
        bool(entry.model),
        bool(entry.tier),
    ]
    if sum(alternatives) != 1 or bool(entry.target) == bool(entry.provider):
        raise InputError("give `provider` with `model` or `tier`, or `target: provider/model`")
    if entry.target:
        target = parse_target_seed(entry.target, file_context.providers)
    elif entry.tier:
        target = Target(entry.provider, _find_tier_model(entry.provider, entry.tier, tiers))
    else:
        target = Target(entry.provider, entry.model)
    return Target(target.provider, target.model, entry.parameters, entry.request_patch)


def _find_tier_model(
    provider: str,
    tier: str,
    tiers: Mapping[str, Mapping[str, str]],
) -> str:
    """Returns the model of a provider's tier. Raises InputError with the nearest tier."""
    models_by_tier = tiers.get(provider, {})
    if tier not in models_by_tier:
        raise InputError(
            f"provider {provider!r} has no tier "
            f"{tier!r}{did_you_mean(tier, models_by_tier)}. Name its model under "
            f"providers.{provider}.tiers"
        )
    return models_by_tier[tier]


def parse_target_seed(
    name: str, providers: Mapping[str, Provider] = MappingProxyType({})
) -> Target:
    """Parses `provider/model`. Raises InputError, which suggests the nearest model."""
    provider, slash, model = name.partition("/")
    if not (slash and provider and model):
        offers = list_offers(providers, Catalogue(), ())
        nearest = ModelNameQuery(name, providers, offers).resolve().target
        nearest = nearest or find_nearest(name, (offer.name for offer in offers))
        hint = f"did you mean {nearest!r}?" if nearest else "e.g. openai/gpt-6-sol"
        raise InputError(f"{name!r} is not a target: write provider/model; {hint}")
    return Target(provider, model)
