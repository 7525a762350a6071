"""Makes the first route of an installation, with what is there already."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.control.context import Context
from harness.control.proposals import submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.providers import credentials, registry
from harness.control.providers.credentials import CredentialChange
from harness.control.routing import routes
from harness.domain.errors import InputError
from harness.domain.evals.suite_plan import SuiteRole
from harness.domain.operations.access import Actor, Role
from harness.domain.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.domain.providers.probe import ProviderCheck
from harness.domain.routing.table import Route, RouteSettings, RouteSuite
from harness.domain.routing.target import Target

SIMULATOR: Final = "sim"
REASON: Final = "the first proposal"


@dataclass(frozen=True, slots=True)
class FirstRoute:
    provider: str = SIMULATOR  # a kind's name, or another one with an address
    api_base: str = "http://127.0.0.1:9000/v1"  # empty for the kind's
    key: str = field(default="", repr=False)  # empty where it needs none, or has a variable
    model: str = "sim-base"
    route: str = "support"
    suite: str = "tickets"
    policy: str = "quick"
    candidate: str = "sim-better"  # a model of the same provider; empty for no proposal


@dataclass(frozen=True, slots=True)
class FirstRouteResult:
    route: Route
    check: ProviderCheck | None
    proposal: str  # its id, empty for none


def provider_choices() -> Sequence[str]:
    named = [
        name
        for name, kind in PROVIDER_KINDS.items()
        if name != SIMULATOR and kind.group is not ProviderGroup.OAUTH
    ]
    return [SIMULATOR, *sorted(named)]


def usual_address(provider: str) -> str:
    if provider == SIMULATOR:
        return FirstRoute().api_base
    kind = PROVIDER_KINDS.get(provider)
    return kind.api_base if kind else ""


def create_first_route(ctx: Context, actor: Actor, wanted: FirstRoute) -> FirstRouteResult:
    """Makes provider, key, route and proposal. After a refusal the same call goes on."""
    # The first steps ask for less, and would be left behind.
    actor.require(Role.ADMIN)
    for name in ("provider", "model", "route", "suite"):
        if not getattr(wanted, name).strip():
            raise InputError(f"{name} is empty, and the first route needs one")
    settings = RouteSettings(
        suites=(RouteSuite(wanted.suite, SuiteRole.PRIMARY),), policy=wanted.policy
    )
    # Before a provider is made: a typing error in the route should leave nothing behind.
    routes.check_settings(ctx, settings)
    registry.register_with_provider(
        ctx, actor, Target(wanted.provider, wanted.model), api_base=wanted.api_base
    )
    if wanted.key:
        credentials.put_credential(
            ctx, actor, wanted.provider, CredentialChange(value=wanted.key)
        )
    incumbent = f"{wanted.provider}/{wanted.model}"
    route = routes.create_route(ctx, actor, wanted.route, incumbent, settings=settings)
    proposal = ""
    if wanted.candidate:
        candidate = f"{wanted.provider}/{wanted.candidate}"
        request = ProposalRequest(wanted.route, candidate, reason=REASON)
        proposal = submission.create_proposal(ctx, actor, request).id
    check = registry.check_added(ctx, actor, wanted.provider)
    return FirstRouteResult(route, check, proposal)
