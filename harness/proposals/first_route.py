"""Creates the first route of an installation: provider, key, route and, if wanted, a proposal.

The terminal's `swapproof init` and the dashboard's first page fill in a `FirstRoute`. The
module only calls the use cases that later changes call too, so it skips no check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from harness.frame.errors import InputError
from harness.frame.people.access import Actor, Role
from harness.gate.suite_plan import SuiteRole
from harness.proposals import submission
from harness.proposals.context import ProposalsContext
from harness.proposals.submission import ProposalRequest
from harness.providers.calls.probe import ProviderCheck
from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.registry import credentials, named_models, registered_providers
from harness.providers.registry.credentials import CredentialChange
from harness.routing.control import routes
from harness.routing.route_settings import RouteSettings, RouteSuite
from harness.routing.table import Route

SIMULATOR: Final = "sim"
REASON: Final = "the first proposal"
# Limit for a request to a simulated model, in seconds: a canary's step waits for its callers'
# last requests.
SIMULATED_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class FirstRoute:
    """Answers of the person who sets the installation up."""

    provider: str  # a kind's name, or another name with an address
    api_base: str = ""  # empty for the kind's address
    key: str = field(default="", repr=False)  # empty if not needed, or set by a variable
    model: str = ""
    route: str = "support"
    suite: str = ""  # empty for a route that no suite decides yet
    policy: str = "default"
    candidate: str = ""  # a model of the same provider; empty for no proposal


# A shipped suite and the policy `quick` decide for the simulator alone: they say nothing about
# a real feature.
SIMULATED_ROUTE: Final = FirstRoute(
    provider=SIMULATOR,
    api_base="http://127.0.0.1:9000/v1",
    model="sim-base",
    suite="tickets",
    policy="quick",
    candidate="sim-better",
)


def suggest_first_route(provider: str, own_suites: Sequence[str] = ()) -> FirstRoute:
    """Suggests the answers for a provider.

    Args:
        own_suites: the suites of the installation's owner; the first one is the suggestion for
            a real provider.
    """
    if provider == SIMULATOR:
        return SIMULATED_ROUTE
    return FirstRoute(
        provider,
        find_usual_address(provider),
        suite=next(iter(own_suites), ""),
    )


@dataclass(frozen=True, slots=True)
class FirstRouteResult:
    """The created route, the provider's check and the proposal.

    check: None in a process that does not call providers.
    """

    route: Route
    check: ProviderCheck | None
    proposal: str  # its id, empty for none


def list_provider_choices() -> Sequence[str]:
    """Lists the providers that a first route may use, the simulator first.

    Omits kinds with a person's account, which needs a sign-in before a key.
    """
    kinds = [
        name
        for name, kind in PROVIDER_KINDS.items()
        if name != SIMULATOR and kind.group is not ProviderGroup.OAUTH
    ]
    return [SIMULATOR, *sorted(kinds)]


def find_usual_address(provider: str) -> str:
    """Returns the usual address of a kind or of the simulator; empty for another name."""
    if provider == SIMULATOR:
        return SIMULATED_ROUTE.api_base
    kind = PROVIDER_KINDS.get(provider)
    return kind.api_base if kind else ""


def build_route_settings(wanted: FirstRoute) -> RouteSettings:
    """Returns the settings of the first route."""
    suites = (RouteSuite(wanted.suite, SuiteRole.PRIMARY),) if wanted.suite else ()
    settings = RouteSettings(suites=suites, policy=wanted.policy)
    if wanted.provider == SIMULATOR:
        settings = replace(settings, total_timeout_s=SIMULATED_TIMEOUT_S)
    return settings


def build_route_entry(wanted: FirstRoute) -> Mapping[str, object]:
    """Returns the first route as the configuration file has it."""
    entry: dict[str, object] = {"incumbent": f"{wanted.provider}/{wanted.model}"}
    if wanted.suite:
        entry["suites"] = [wanted.suite]
    entry["policy"] = wanted.policy
    if wanted.provider == SIMULATOR:
        entry["total_timeout_s"] = SIMULATED_TIMEOUT_S
    return entry


def prepare_provider(
    ctx: ProposalsContext,
    actor: Actor,
    name: str,
    *,
    api_base: str,
    key: str = "",
) -> Sequence[str]:
    """Adds a missing provider, stores its key and reads its list of models, with their prices.

    Args:
        key: empty to store none.

    Returns the listed models; empty if the list could not be read.
    Raises as `register_provider` and `put_credential`.
    """
    registered_providers.register_provider(ctx, actor, name, api_base=api_base)
    if key:
        credentials.put_credential(ctx, actor, name, CredentialChange(value=key))
    # A list that could not be read stops nothing: the check of the provider says why.
    named_models.describe_list(ctx, actor, name)
    return [model.model for model in named_models.list_discovered(ctx, name)]


def create_first_route(
    ctx: ProposalsContext,
    actor: Actor,
    first_route: FirstRoute,
) -> FirstRouteResult:
    """Creates provider, key, route and proposal, each in a transaction of its own.

    After an error before the route exists, repeat the call to continue. An existing target
    stays as it is, and so does an existing provider at the same address; a given key is stored
    again. Once the route exists, a repeated call stores the key and then raises Conflict. If
    only the proposal is missing, call `create_proposal`.

    Needs an admin. Raises InputError for an empty name, and the errors of its steps:
    `check_settings`, `prepare_provider`, `create_route`, `create_proposal`.
    """
    # Check the role first: a later refusal would not undo steps that need a lower role.
    actor.require(Role.ADMIN)
    for name in ("provider", "model", "route"):
        if not getattr(first_route, name).strip():
            raise InputError(f"{name} is empty, but the first route needs it")
    settings = build_route_settings(first_route)
    # Check the route first, so that a typing error in it leaves no provider behind.
    routes.check_settings(ctx, settings)
    prepare_provider(
        ctx, actor, first_route.provider, api_base=first_route.api_base, key=first_route.key
    )
    incumbent = f"{first_route.provider}/{first_route.model}"
    route = routes.create_route(ctx, actor, first_route.route, incumbent, settings=settings)
    proposal = ""
    if first_route.candidate:
        candidate = f"{first_route.provider}/{first_route.candidate}"
        request = ProposalRequest(first_route.route, candidate, reason=REASON)
        proposal = submission.create_proposal(ctx, actor, request).id
    check = registered_providers.check_added(ctx, actor, first_route.provider)
    return FirstRouteResult(route, check, proposal)
