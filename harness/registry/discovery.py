"""Reads and stores the models that a provider lists. Listing a model does not call it."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from harness.frame.errors import (
    ConfigError,
    Conflict,
    DiscoveryFailed,
    InputError,
    StoreUnavailable,
    SwapgateError,
)
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.providers.calls.probe import ProbeReply, models_path
from harness.providers.credential import lacks_key
from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.models.discovered_model import (
    DiscoveredList,
    DiscoveredModel,
    parse_listed_models,
)
from harness.providers.models.name_resolution import GATEWAYS
from harness.providers.records import DiscoveredModels, Providers
from harness.providers.target import Provider, Target
from harness.registry import named_models, provider_secrets, targets
from harness.routing.context import Context

TIMEOUT_S: Final = 10.0
AT_ONCE: Final = 8
_OWN_MODELS: Final = (ProviderGroup.LOCAL, ProviderGroup.SIMULATED)


def discover_models(ctx: Context, actor: Actor, name: str) -> DiscoveredList:
    """Reads the provider's list now, and stores it. Raises NotFound, DiscoveryFailed without a
    valid list, Conflict without a key or if the provider was changed meanwhile.
    """
    actor.require(Role.PROPOSER)
    with ctx.store.read() as tx:
        provider = targets.require_provider(tx, name)
    return _keep(ctx, actor, provider, _ask(ctx, provider))


def discover_several(
    ctx: Context, actor: Actor, providers: Sequence[Provider]
) -> Mapping[str, DiscoveredList | SwapgateError]:
    """Reads AT_ONCE lists at a time; each takes at most TIMEOUT_S."""
    actor.require(Role.PROPOSER)

    def ask(provider: Provider) -> ProbeReply | SwapgateError:
        try:
            return _ask(ctx, provider)
        except SwapgateError as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        replies = list(pool.map(ask, providers))
    found: dict[str, DiscoveredList | SwapgateError] = {}
    for provider, reply in zip(providers, replies, strict=True):
        try:
            found[provider.name] = (
                reply
                if isinstance(reply, SwapgateError)
                else _keep(ctx, actor, provider, reply)
            )
        except StoreUnavailable:
            raise
        except SwapgateError as error:
            found[provider.name] = error
    return found


def _keep(ctx: Context, actor: Actor, provider: Provider, reply: ProbeReply) -> DiscoveredList:
    name = provider.name
    if reply.error:
        raise DiscoveryFailed(f"provider {name!r} lists no models: {reply.error}")
    try:
        listed = parse_listed_models(reply.content, provider, ctx.clock.now())
    except InputError as error:
        raise DiscoveryFailed(
            f"provider {name!r} at {provider.api_base} lists no models: {error}"
        ) from None
    with ctx.store.write() as tx:
        if Providers(tx).all().get(name) != provider:
            raise Conflict(
                f"provider {name!r} was changed while Swapgate read its list: discover again"
            )
        DiscoveredModels(tx).replace(name, listed.models)
        count = {"models": len(listed.models), "left_out": listed.left_out}
        # A scheduled read decides nothing, so it needs no audit event.
        if actor != SYSTEM:
            AuditLog(tx).append(actor, "provider.discover", f"provider {name}", count)
    return listed


def describe_unlisted(ctx: Context, actor: Actor, target: Target) -> str:
    """Returns a sentence if a provider lacks a new model. Reads the list of your own servers
    and gateways now.
    """
    with ctx.store.read() as tx:
        provider = targets.require_provider(tx, target.provider)
    if has_own_models(provider) and ctx.door is not None:
        try:
            discover_models(ctx, actor, target.provider)
        except SwapgateError as error:
            return f"its models are unknown: {error}"
    with ctx.store.read() as tx:
        return named_models.find_unlisted(tx, target)


def describe_list(ctx: Context, actor: Actor, provider: str) -> str:
    if ctx.door is None:
        return ""
    try:
        listed = discover_models(ctx, actor, provider)
    except SwapgateError as error:
        return f"its models are unknown: {error}"
    return f"models that it lists: {len(listed.models):,}"


def _ask(ctx: Context, provider: Provider) -> ProbeReply:
    if ctx.door is None:
        raise ConfigError("this process does not call providers")
    keys = provider_secrets.keys_of_provider(ctx, provider)
    if lacks_key(provider, keys):
        raise Conflict(
            f"provider {provider.name!r} has no key: "
            f"`swapgate provider key set {provider.name}`"
        )
    clear = provider_secrets.decrypt_headers(provider, ctx.cipher)
    secret = keys[0].secret if keys else ""
    return ctx.door.ask(clear, secret, models_path(provider.kind), None, TIMEOUT_S)


def list_discovered(ctx: Context, provider: str) -> Sequence[DiscoveredModel]:
    """Returns the provider's stored list. Raises NotFound."""
    with ctx.store.read() as tx:
        targets.require_provider(tx, provider)
        return [model for model in named_models.read_lists(tx) if model.provider == provider]


def has_own_models(provider: Provider) -> bool:
    kind = PROVIDER_KINDS.get(provider.kind)
    return kind is not None and (kind.group in _OWN_MODELS or kind.name in GATEWAYS)
