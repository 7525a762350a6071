"""Builds seeds from the file's `routes`. A seed creates a route that the database lacks.

An existing route is not changed by the file: people change it by use cases, with audit events
(`harness.routes.routes`). The functions raise ConfigError with the place of the fault. They
register no target and pin no suite: `harness.app.seed` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.config.source_locations import Document
from harness.frame.errors import InputError
from harness.frame.people.access import check_principal_name
from harness.frame.suggestions import did_you_mean, find_nearest
from harness.providers.models.catalogue import Catalogue
from harness.providers.models.model_match import list_offers
from harness.providers.models.name_resolution import ModelNameQuery
from harness.providers.target import Provider, RequestPatch, Target
from harness.routing.candidate_schedule import check_selection
from harness.routing.capture import check_capture
from harness.routing.kept_responses import OFF, check_state, parse_state_time
from harness.routing.plan import parse_keep_warm_share, parse_share_bps
from harness.routing.route_changes import check_route_name
from harness.routing.settings import RouteSeed
from harness.routing.table import (
    Overrides,
    PlainRouteSettings,
    RequestKind,
    RouteSettings,
    RouteSuite,
    override_errors,
)

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


@dataclass(frozen=True, kw_only=True)
class RouteEntry(PlainRouteSettings):
    incumbent: str | TargetEntry  # the first model: provider/model, or its parts
    # Targets that answer if the incumbent fails, in this order.
    fallbacks: tuple[str | FallbackEntry, ...] = ()
    # Suites that decide the route's swaps: names, or name, role and weight.
    suites: tuple[str | RouteSuite, ...] = ()
    # Share of callers that keeps each fallback provider warm: 1%, or 100 (basis points).
    keep_warm: int | str = 0
    # Set it if tools' effects cannot be undone; prevents keep-warm and shadows.
    tools: Literal["side_effects"] | None = None
    capture: int | str = 0  # share to capture, redacted, such as 1% or 100 (basis points)
    # How long Swapgate keeps the items of Responses answers, so that `previous_response_id` and
    # `item_reference` work across swaps: 90m, 24h, 7d or off. Stores content.
    responses_state: str = OFF
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
    with at("keep_warm"):
        keep_warm_bps = parse_keep_warm_share(entry.keep_warm)
    with at("candidates"):
        if entry.candidates is not None:
            check_selection(entry.candidates)
    with at("data_class"):
        if entry.data_class and entry.data_class not in known.data_classes:
            hint = did_you_mean(entry.data_class, known.data_classes)
            raise InputError(f"`data_classes` has no {entry.data_class!r}{hint}")
    capable = tuple(
        target.id
        for target, fallback in zip(fallbacks, entry.fallbacks, strict=True)
        if isinstance(fallback, FallbackEntry) and fallback.capable
    )
    with at("responses_state"):
        responses_state_h = parse_state_time(entry.responses_state)
    with at("capture"):
        settings = RouteSettings(
            **{of.name: getattr(entry, of.name) for of in fields(PlainRouteSettings)},
            suites=tuple(RouteSuite(s) if isinstance(s, str) else s for s in entry.suites),
            keep_warm_bps=keep_warm_bps,
            side_effects=entry.tools == "side_effects",
            capable=capable,
            capture_bps=parse_share_bps(entry.capture, what="capture"),
            responses_state_h=responses_state_h,
            overrides=entry.overrides.given,
        )
        check_capture(settings)
    with at("responses_state"):
        check_state(settings)
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
