"""Finds the model that a name means, for commands, routes and agents. Reads and stores the
models that a provider lists. Listing a model does not call it.

A name may be a target's id, `provider/model` or a short form. The rules of names are pure
(`harness.providers.models`); this module gives them stored providers, lists and keys. Only
`register_model` stores a target.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

from harness.frame.errors import (
    AmbiguousName,
    ConfigError,
    Conflict,
    DiscoveryFailed,
    InputError,
    NotFound,
    StoreUnavailable,
    SwapproofError,
)
from harness.frame.formatting import format_quantity
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.frame.suggestions import did_you_mean
from harness.providers.calls.probe import ProbeReply, is_listed, models_path
from harness.providers.context import ProvidersContext
from harness.providers.credential import lacks_key
from harness.providers.force import Force, KillSwitch, active_switches
from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.models.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
    Endpoint,
)
from harness.providers.models.catalogue import CatalogueEntry
from harness.providers.models.model_match import (
    DiscoveredList,
    DiscoveredModel,
    ModelOffer,
    is_short_for,
    list_nearest,
    list_offers,
    match_among,
    parse_listed_models,
)
from harness.providers.models.name_resolution import (
    GATEWAYS,
    ModelNameQuery,
    Resolution,
    ResolutionRule,
    RuleResult,
)
from harness.providers.oauth import TOKEN_KEY_NAME
from harness.providers.records import DiscoveredModels, Providers, SignIns, Targets
from harness.providers.registry import provider_secrets, targets
from harness.providers.target import Provider, Target

TIMEOUT_S: Final = 10.0
AT_ONCE: Final = 8
_OWN_MODEL_GROUPS: Final = (ProviderGroup.LOCAL, ProviderGroup.SIMULATED)


def discover_models(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
) -> DiscoveredList:
    """Reads the provider's list now, and stores it. Raises NotFound, DiscoveryFailed without a
    valid list, Conflict without a key or if the provider was changed meanwhile.
    """
    actor.require(Role.PROPOSER)
    with ctx.store.read() as tx:
        provider = targets.require_provider(tx, name)
    requested_at = ctx.clock.now()
    return _store_list(ctx, actor, provider, _request_list(ctx, provider), requested_at)


def discover_several(
    ctx: ProvidersContext,
    actor: Actor,
    providers: Sequence[Provider],
) -> Mapping[str, DiscoveredList | SwapproofError]:
    """Reads the lists of several providers, AT_ONCE at a time. One list takes at most
    TIMEOUT_S.

    Returns by provider its list, or the error of reading it. Raises StoreUnavailable.
    """
    actor.require(Role.PROPOSER)

    requested_at = ctx.clock.now()

    def ask(provider: Provider) -> ProbeReply | SwapproofError:
        try:
            return _request_list(ctx, provider)
        except SwapproofError as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        replies = list(pool.map(ask, providers))
    results: dict[str, DiscoveredList | SwapproofError] = {}
    for provider, reply in zip(providers, replies, strict=True):
        try:
            results[provider.name] = (
                reply
                if isinstance(reply, SwapproofError)
                else _store_list(ctx, actor, provider, reply, requested_at)
            )
        except StoreUnavailable:
            raise
        except SwapproofError as error:
            results[provider.name] = error
    return results


def _store_list(
    ctx: ProvidersContext,
    actor: Actor,
    provider: Provider,
    reply: ProbeReply,
    requested_at: datetime,
) -> DiscoveredList:
    """Stores a list that a provider sent. Raises the errors of `discover_models`.

    Refuses the list if the provider changed meanwhile: a list from its former address would be
    wrong. Keeps a stored list that was requested later, because it is newer.
    """
    name = provider.name
    if reply.error:
        raise DiscoveryFailed(
            f"provider {name!r} lists no models: {reply.error}; `swapproof provider set {name} "
            "--api-base URL` changes its address"
        )
    try:
        parsed = parse_listed_models(reply.content, provider, requested_at)
    except InputError as error:
        raise DiscoveryFailed(
            f"provider {name!r} at {provider.api_base} lists no models: {error}"
        ) from None
    with ctx.store.write() as tx:
        if Providers(tx).all().get(name) != provider:
            raise Conflict(
                f"provider {name!r} was changed while Swapproof read its list: discover again"
            )
        if DiscoveredModels(tx).has_newer(provider, requested_at):
            return parsed
        DiscoveredModels(tx).replace(name, parsed.models)
        used = targets.list_used_models(ctx, tx, provider)
        targets.store_prices(ctx, tx, actor, provider, used)
        count = {"models": len(parsed.models), "left_out": parsed.left_out}
        # A scheduled read decides nothing, so it needs no audit event.
        if actor != SYSTEM:
            AuditLog(tx).append(actor, "provider.discover", f"provider {name}", count)
    return parsed


def describe_unlisted(
    ctx: ProvidersContext,
    actor: Actor,
    target: Target,
) -> str:
    """Returns a warning if the provider of a new model does not list it; else empty. First
    reads the list again if the provider is a server of your own or a gateway.
    """
    with ctx.store.read() as tx:
        provider = targets.require_provider(tx, target.provider)
    if has_own_models(provider) and ctx.probe is not None:
        try:
            discover_models(ctx, actor, target.provider)
        except SwapproofError as error:
            return f"Swapproof could not read its models: {error}"
    with ctx.store.read() as tx:
        return describe_missing_in_list(tx, target)


def describe_list(
    ctx: ProvidersContext,
    actor: Actor,
    provider: str,
) -> str:
    """Reads a provider's list, and describes the result or the failure for people.

    Empty in a process that calls no provider.
    """
    if ctx.probe is None:
        return ""
    try:
        models_list = discover_models(ctx, actor, provider)
    except SwapproofError as error:
        return f"Swapproof could not read its models: {error}"
    return f"it lists {format_quantity(len(models_list.models), 'model')}"


def _request_list(ctx: ProvidersContext, provider: Provider) -> ProbeReply:
    """Requests a provider's list. Raises ConfigError in a process that calls no provider, and
    Conflict without a key.
    """
    if ctx.probe is None:
        raise ConfigError("this process does not call providers")
    keys = provider_secrets.keys_of_provider(ctx, provider)
    if lacks_key(provider, keys):
        raise Conflict(
            f"provider {provider.name!r} has no key: "
            f"`swapproof provider key set {provider.name}`"
        )
    clear = provider_secrets.decrypt_headers(provider, ctx.cipher)
    secret = keys[0].secret if keys else ""
    return ctx.probe.ask(clear, secret, models_path(provider.kind), None, TIMEOUT_S)


def list_discovered(ctx: ProvidersContext, provider: str) -> Sequence[DiscoveredModel]:
    """Returns the provider's stored list. Raises NotFound."""
    with ctx.store.read() as tx:
        targets.require_provider(tx, provider)
        return [model for model in read_lists(tx) if model.provider == provider]


def has_own_models(provider: Provider) -> bool:
    """Tells whether only the provider's operator knows its models, because no catalogue lists
    them.
    """
    kind = PROVIDER_KINDS.get(provider.kind)
    return kind is not None and (kind.group in _OWN_MODEL_GROUPS or kind.name in GATEWAYS)


MAX_NAME_IN_ERROR: Final = (
    28  # most characters of the requested name in an error, which has at most 200
)
MAX_NEAREST_LENGTH: Final = 55  # most characters of all nearest names in such an error
MODEL_NOT_FOUND: Final = "model_not_found"  # an error's code
MAX_NEAREST_IN_ERROR: Final = 2  # most nearest names in an error
MAX_NEAREST: Final = 5
_EXPLICIT_RULES: Final = (ResolutionRule.PREFIX, ResolutionRule.OAUTH)


@dataclass(frozen=True, slots=True)
class NameReading:
    """The result of reading a name, with the rules that applied, for people and API.

    provider, model: None if no rule took the name.
    """

    name: str
    provider: str | None
    model: str | None
    rules: tuple[RuleResult, ...]
    reason: str  # why this model, or no model, was found
    found: Target | None = None  # the model, registered or not
    candidates: tuple[str, ...] = ()  # models that the name means equally well
    near: tuple[str, ...] = ()  # similar names if no model was found
    unlisted: str = ""  # a sentence if the provider's list lacks the model


def find_model(
    ctx: ProvidersContext,
    tx: Transaction,
    words: str,
) -> Target:
    """Finds the target of a name. Raises NotFound, AmbiguousName, InputError without a name."""
    reading = read_name(ctx, tx, words)
    if reading.found is not None:
        return reading.found
    if reading.candidates:
        raise AmbiguousName(reading.reason, candidates=reading.candidates)
    raise NotFound(reading.reason, code=MODEL_NOT_FOUND)


def find_listed_model(
    ctx: ProvidersContext,
    tx: Transaction,
    words: str,
) -> Target:
    """Finds the target of a name that its provider lists. Raises the errors of `find_model` and
    `require_listed`.
    """
    target = find_model(ctx, tx, words)
    require_listed(ctx, tx, target)
    return target


def require_listed(
    ctx: ProvidersContext,
    tx: Transaction,
    target: Target,
) -> None:
    """Checks that the provider lists the model or a person named it. Raises NotFound.

    A person names a model by adding a target, or by giving it a price or abilities in the
    configuration. Without a stored list, any model counts as listed.
    """
    if not describe_missing_in_list(tx, target):
        return
    provider = targets.provider_of(tx, target)
    name = target.name
    registered = {(stored.provider, stored.model) for stored in Targets(tx).all().values()}
    configured = {*provider.models, *provider.prices}
    if target.model in configured or (target.provider, target.model) in registered:
        return
    nearest = list_nearest(name, (offer.name for offer in read_offers(ctx, tx)))
    shown_name = name if len(name) <= MAX_NAME_IN_ERROR else "PROVIDER/MODEL"
    advice = f"`swapproof model add {shown_name}` adds it"
    raise NotFound(_describe_unknown(name, nearest) + advice, code=MODEL_NOT_FOUND)


def describe_unchecked(
    ctx: ProvidersContext,
    tx: Transaction,
    target: Target,
) -> str:
    """Returns a warning if Swapproof could not check the model's name; else empty."""
    provider = targets.provider_of(tx, target)
    listed_models = read_lists(tx)
    if (
        any(model.provider == provider.name for model in listed_models)
        or target.model in {*provider.models, *provider.prices}
        or ctx.catalogue.find(provider.kind, target.model)
    ):
        return ""
    return (
        f"{provider.name} never listed its models, so {target.model} was not checked: "
        f"`swapproof model discover {provider.name}` reads its list"
    )


def register_model(
    ctx: ProvidersContext,
    tx: Transaction,
    actor: Actor,
    words: str,
) -> Target:
    """Finds the target of a name, and registers it if it is new. Raises the errors of
    `find_listed_model`.

    The caller checks the actor's role.
    """
    target = find_listed_model(ctx, tx, words)
    if target.id in Targets(tx).all():
        return target
    return targets.register_target(ctx, tx, actor, Target(target.provider, target.model))


def explain_name(
    ctx: ProvidersContext,
    name: str,
    *,
    configured: Sequence[KillSwitch] = (),
) -> NameReading:
    """Reads a name, with the rules that applied. Also applies the kill switch for all routes,
    which changes only the provider that answers now.

    Args:
        configured: switches from the environment and the file.
    """
    with ctx.store.read() as tx:
        reading = read_name(ctx, tx, name)
        switches = (*configured, *ctx.uses.switches(tx))
        active = active_switches(switches, ctx.clock.now())
        forced = [
            switch.force
            for switch in active
            if switch.route is None and not switch.force.avoids
        ]
        if not forced:
            return reading
        forced_resolution = _apply_rules(ctx, tx, name, (), forced=forced[0])
    return replace(
        reading,
        provider=forced_resolution.provider,
        model=forced_resolution.model,
        rules=forced_resolution.rules,
    )


def read_name(
    ctx: ProvidersContext,
    tx: Transaction,
    words: str,
) -> NameReading:
    """Reads a name by the rules. Raises InputError for an empty or ambiguous name.

    The result has the found model, or several models that fit equally well, or similar names.
    It first tries the providers with a key, then all providers, so that the reason can name a
    missing key.
    """
    name = words.strip()
    if not name:
        raise InputError("the model's name is empty: write PROVIDER/MODEL")
    offers = read_offers(ctx, tx)
    registered = targets.find_known_target(tx, name)
    if registered is not None:
        targets.provider_of(tx, registered)
        resolution = _apply_rules(ctx, tx, f"{registered.provider}/{registered.model}", offers)
        return replace(
            _build_found_reading(tx, resolution, "it is registered", registered), name=name
        )
    usable_providers = provider_secrets.find_usable_providers(ctx, tx)
    resolution = _apply_rules(ctx, tx, name, offers, usable=usable_providers)
    if resolution.target is None and not resolution.candidates:
        resolution = _apply_rules(ctx, tx, name, offers)
    if resolution.candidates:
        candidates = ", ".join(resolution.candidates)
        text = f"{name[:MAX_NAME_IN_ERROR]!r} may be one of {candidates}: name one"
        return replace(_build_reading(resolution, text), candidates=resolution.candidates)
    if resolution.target is None:
        return _build_unknown_reading(ctx, tx, resolution, offers)
    if resolution.provider not in usable_providers and not _is_decided_by(
        resolution, *_EXPLICIT_RULES
    ):
        return _build_reading(
            resolution,
            f"{name[:MAX_NAME_IN_ERROR]!r} is {resolution.target}, whose provider has no key: "
            f"`swapproof provider key set {resolution.provider}`",
        )
    target = targets.find_known_target(tx, resolution.target) or Target.from_name(
        resolution.target
    )
    return _build_found_reading(tx, resolution, resolution.reason, target)


def _apply_rules(
    ctx: ProvidersContext,
    tx: Transaction,
    name: str,
    offers: Sequence[ModelOffer],
    *,
    forced: Force | None = None,
    usable: Collection[str] | None = None,
) -> Resolution:
    """Runs the six rules of `name_resolution` on a name.

    Args:
        usable: providers that may take a name without their prefix; None for all.
    """
    token_providers = {
        credential.provider
        for credential in provider_secrets.list_live_credentials(tx)
        if credential.name == TOKEN_KEY_NAME
    }
    query = ModelNameQuery(
        name,
        Providers(tx).all(),
        offers,
        today=ctx.clock.now().date(),
        catalogue=ctx.catalogue,
        usable=usable,
        forced=forced,
        signed_in=token_providers & {account.provider for account in SignIns(tx).all()},
    )
    return query.resolve()


def _is_decided_by(resolution: Resolution, *rules: ResolutionRule) -> bool:
    return resolution.deciding is not None and resolution.deciding.rule in rules


def _build_reading(resolution: Resolution, reason: str) -> NameReading:
    return NameReading(
        resolution.name, resolution.provider, resolution.model, resolution.rules, reason
    )


def _build_found_reading(
    tx: Transaction,
    resolution: Resolution,
    reason: str,
    target: Target,
) -> NameReading:
    unlisted = describe_missing_in_list(tx, target)
    return replace(_build_reading(resolution, reason), found=target, unlisted=unlisted)


def _build_unknown_reading(
    ctx: ProvidersContext,
    tx: Transaction,
    resolution: Resolution,
    offers: Sequence[ModelOffer],
) -> NameReading:
    """Builds the answer for an unknown name, with similar names."""
    if _is_decided_by(resolution, ResolutionRule.OAUTH):  # the account is not signed in
        return _build_reading(resolution, resolution.reason)
    name = resolution.name
    versions = match_among(name, offers, today=ctx.clock.now().date()).near
    known_names = {*(offer.name for offer in offers), *ctx.uses.routed_targets(tx)}
    nearest = tuple(dict.fromkeys((*versions, *list_nearest(name, known_names))))[:MAX_NEAREST]
    advice = "`swapproof model add PROVIDER/MODEL` adds a model"
    if resolution.add_command:
        model = re.split("[/:]", name, maxsplit=1)[-1]
        nearest = tuple(other for other in nearest if is_short_for(model, other))
        advice = f"`{resolution.add_command}` sets up its provider"
    return replace(
        _build_reading(resolution, _describe_unknown(name, nearest) + advice), near=nearest
    )


def _describe_unknown(unknown: str, nearest: Sequence[str]) -> str:
    shown: list[str] = []
    for nearest_name in nearest:
        # Omits long names and never shortens a name, so that people can copy each name.
        if (
            len(shown) < MAX_NEAREST_IN_ERROR
            and sum(map(len, shown)) + len(nearest_name) <= MAX_NEAREST_LENGTH
        ):
            shown.append(nearest_name)
    hint = f"nearest: {' and '.join(shown)}; " if shown else ""
    return f"no provider lists {unknown[:MAX_NAME_IN_ERROR]!r}; {hint}"


def list_configured_offers(ctx: ProvidersContext) -> Sequence[tuple[str, CatalogueEntry]]:
    """Lists the models of configured providers, as (`provider/model`, entry).

    The configuration's price replaces the catalogue's.
    """
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
        offers = read_offers(ctx, tx)
    offers_with_entries = []
    for offer in offers:
        entry = offer.entry or CatalogueEntry(offer.kind, offer.model)
        own_price = providers[offer.provider].prices.get(offer.model)
        offers_with_entries.append((offer.name, replace(entry, price=own_price or entry.price)))
    return offers_with_entries


def list_offered_targets(
    offers: Iterable[tuple[str, CatalogueEntry]],
) -> Mapping[str, Target]:
    """Returns the target of each of these offers, by the offer's name."""
    parts = {name: name.partition("/") for name, _ in offers}
    return {name: Target(provider, model) for name, (provider, _, model) in parts.items()}


def search_catalogue(
    ctx: ProvidersContext, words: Sequence[str]
) -> Sequence[tuple[str, CatalogueEntry]]:
    """Finds catalogue entries whose names contain all words, in any case and order."""
    parts = [word.lower() for phrase in words for word in phrase.split()]
    matches = [
        entry for entry in ctx.catalogue if all(part in entry.name.lower() for part in parts)
    ]
    return [(match.name, match) for match in sorted(matches, key=lambda offer: offer.name)]


def read_offers(ctx: ProvidersContext, tx: Transaction) -> Sequence[ModelOffer]:
    """Lists the models that the configured providers may serve, from catalogue, lists and
    targets.
    """
    return list_offers(
        Providers(tx).all(),
        ctx.catalogue,
        Targets(tx).all().values(),
        read_lists(tx),
    )


def read_lists(tx: Transaction) -> Sequence[DiscoveredModel]:
    """Returns the lists of all providers, except lists of a provider's former address."""
    providers = Providers(tx).all()
    models = DiscoveredModels(tx).all()
    return [model for model in models if model.source == providers[model.provider].api_base]


def describe_missing_in_list(tx: Transaction, target: Target) -> str:
    """Returns a warning if the provider's list lacks a model. Empty if there is no list."""
    names = {model.model for model in read_lists(tx) if model.provider == target.provider}
    if not names or is_listed(target.model, names):
        return ""
    kind = targets.provider_of(tx, target).kind
    offers = [ModelOffer(target.provider, kind, name) for name in sorted(names)]
    # An alias, such as `claude-sonnet-4-5`, means a listed model with a date.
    match = match_among(target.model, offers, today=date.min)
    hint = did_you_mean(target.model, names, meant=match.found.model if match.found else "")
    return f"{target.provider} does not list {target.model} among {len(names)}{hint}"


def model_capabilities(
    ctx: ProvidersContext,
    provider: Provider,
    model: str,
) -> Capabilities:
    """Returns the capabilities of a model that neither its kind nor the registry nor the
    catalogue denies. The registry's context window takes precedence.
    """
    kind = PROVIDER_KINDS[provider.kind]
    declared = provider.abilities(model)
    entry = ctx.catalogue.find(provider.kind, model)
    published = entry.capabilities if entry is not None else UNKNOWN_CAPABILITIES
    confirmed: dict[str, Any] = {
        name: getattr(declared, name) and getattr(published, name)
        for name in ("stream", "tools", "parallel_tools", "vision")
    }
    return Capabilities(
        chat=declared.chat and published.chat and Endpoint.CHAT in kind.serves,
        context_window=declared.context_window or published.context_window,
        **confirmed,
    )
