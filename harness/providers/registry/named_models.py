"""Finds the model that a name means, for commands, routes and agents. Reads and stores the
models that a provider lists. Listing a model does not call it.

A name may be a target's id, `provider/model` or a short form (`harness.providers.models`). The
rules of names are pure and live there; this module gives them stored providers, lists and keys.
It stores no target, except in `register_model`.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

from harness.frame.errors import (
    AmbiguousName,
    ConfigError,
    Conflict,
    DiscoveryFailed,
    InputError,
    NotFound,
    StoreUnavailable,
    SwapgateError,
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
_OWN_MODELS: Final = (ProviderGroup.LOCAL, ProviderGroup.SIMULATED)


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
    return _keep(ctx, actor, provider, _ask(ctx, provider))


def discover_several(
    ctx: ProvidersContext,
    actor: Actor,
    providers: Sequence[Provider],
) -> Mapping[str, DiscoveredList | SwapgateError]:
    """Reads AT_ONCE lists at a time. One list takes at most TIMEOUT_S.

    Returns by provider its list, or the error that kept it from being read. Raises
    StoreUnavailable.
    """
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


def _keep(
    ctx: ProvidersContext,
    actor: Actor,
    provider: Provider,
    reply: ProbeReply,
) -> DiscoveredList:
    """Stores a list that a provider sent. Raises as `discover_models`.

    The provider must not have changed since: a list of its former address would be wrong.
    """
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
        used = targets.used_models(ctx, tx, provider)
        targets.store_prices(ctx, tx, actor, provider, used)
        count = {"models": len(listed.models), "left_out": listed.left_out}
        # A scheduled read decides nothing, so it needs no audit event.
        if actor != SYSTEM:
            AuditLog(tx).append(actor, "provider.discover", f"provider {name}", count)
    return listed


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
    if has_own_models(provider) and ctx.door is not None:
        try:
            discover_models(ctx, actor, target.provider)
        except SwapgateError as error:
            return f"Swapgate could not read its models: {error}"
    with ctx.store.read() as tx:
        return find_unlisted(tx, target)


def describe_list(
    ctx: ProvidersContext,
    actor: Actor,
    provider: str,
) -> str:
    """Reads a provider's list, and describes the result for people, also a failure.

    Empty in a process that calls no provider.
    """
    if ctx.door is None:
        return ""
    try:
        listed = discover_models(ctx, actor, provider)
    except SwapgateError as error:
        return f"Swapgate could not read its models: {error}"
    return f"it lists {format_quantity(len(listed.models), 'model')}"


def _ask(ctx: ProvidersContext, provider: Provider) -> ProbeReply:
    """Requests a provider's list. Raises ConfigError in a process that calls no provider, and
    Conflict without a key.
    """
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


def list_discovered(ctx: ProvidersContext, provider: str) -> Sequence[DiscoveredModel]:
    """Returns the provider's stored list. Raises NotFound."""
    with ctx.store.read() as tx:
        targets.require_provider(tx, provider)
        return [model for model in read_lists(tx) if model.provider == provider]


def has_own_models(provider: Provider) -> bool:
    """Tells whether a provider's models are its operator's choice, so that no catalogue knows
    them.
    """
    kind = PROVIDER_KINDS.get(provider.kind)
    return kind is not None and (kind.group in _OWN_MODELS or kind.name in GATEWAYS)


SHORT: Final = 28  # most characters of the given name in an error, which has at most 200
ROOM: Final = 55  # most characters of all nearest names in such an error
UNKNOWN: Final = "model_not_found"  # an error's code
NEAREST: Final = 2  # most nearest names in an error
MOST_NEAR: Final = 5
_NAMES_PROVIDER: Final = (ResolutionRule.PREFIX, ResolutionRule.OAUTH)


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
    raise NotFound(reading.reason, code=UNKNOWN)


def find_listed_model(
    ctx: ProvidersContext,
    tx: Transaction,
    words: str,
) -> Target:
    """Finds the target of a name that its provider lists. Raises as `find_model` and
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
    if not find_unlisted(tx, target):
        return
    provider = targets.provider_of(tx, target)
    name = target.name
    known = {(stored.provider, stored.model) for stored in Targets(tx).all().values()}
    settled = {*provider.models, *provider.prices}
    if target.model in settled or (target.provider, target.model) in known:
        return
    near = list_nearest(name, (offer.name for offer in read_offers(ctx, tx)))
    copied = name if len(name) <= SHORT else "PROVIDER/MODEL"
    add = f"`swapgate model add {copied}` adds it"
    raise NotFound(_describe_unknown(name, near) + add, code=UNKNOWN)


def describe_unchecked(
    ctx: ProvidersContext,
    tx: Transaction,
    target: Target,
) -> str:
    """Returns a warning if Swapgate could not check the model's name; else empty."""
    provider = targets.provider_of(tx, target)
    known = read_lists(tx)
    if (
        any(model.provider == provider.name for model in known)
        or target.model in {*provider.models, *provider.prices}
        or ctx.catalogue.find(provider.kind, target.model)
    ):
        return ""
    return (
        f"{provider.name} never listed its models, so {target.model} was not checked: "
        f"`swapgate model discover {provider.name}` reads its list"
    )


def register_model(
    ctx: ProvidersContext,
    tx: Transaction,
    actor: Actor,
    words: str,
) -> Target:
    """Finds the target of a name, and registers it if it is new. Raises as `find_listed_model`.

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
    standing: Sequence[KillSwitch] = (),
) -> NameReading:
    """Reads a name, with the rules that applied. Also applies the kill switch for all routes,
    which changes only the provider that answers now.

    standing: switches of environment and file.
    """
    with ctx.store.read() as tx:
        reading = read_name(ctx, tx, name)
        switches = (*standing, *ctx.uses.switches(tx))
        active = active_switches(switches, ctx.clock.now())
        forced = [s.force for s in active if s.route is None and not s.force.avoids]
        if not forced:
            return reading
        sent = _apply_rules(ctx, tx, name, (), forced=forced[0])
    return replace(
        reading,
        provider=sent.provider,
        model=sent.model,
        rules=sent.rules,
    )


def read_name(
    ctx: ProvidersContext,
    tx: Transaction,
    words: str,
) -> NameReading:
    """Reads a name by the rules. Raises InputError for an empty or ambiguous name.

    The result has the found model, or several models that fit equally well, or similar names.
    It first tries the providers with a key, then all, to explain a missing key.
    """
    name = words.strip()
    if not name:
        raise InputError("the model's name is empty: write PROVIDER/MODEL")
    offers = read_offers(ctx, tx)
    known = targets.find_known_target(tx, name)
    if known is not None:
        targets.provider_of(tx, known)
        taken = _apply_rules(ctx, tx, f"{known.provider}/{known.model}", offers)
        return replace(_read_as(tx, taken, "it is registered", known), name=name)
    usable = provider_secrets.find_usable(ctx, tx)
    taken = _apply_rules(ctx, tx, name, offers, usable=usable)
    if taken.target is None and not taken.candidates:
        taken = _apply_rules(ctx, tx, name, offers)
    if taken.candidates:
        text = f"{name[:SHORT]!r} may be one of {', '.join(taken.candidates)}: name one"
        return replace(_reading(taken, text), candidates=taken.candidates)
    if taken.target is None:
        return _not_found(ctx, tx, taken, offers)
    if taken.provider not in usable and not _decided_by(taken, *_NAMES_PROVIDER):
        return _reading(
            taken,
            f"{name[:SHORT]!r} is {taken.target}, whose provider has no key: "
            f"`swapgate provider key set {taken.provider}`",
        )
    target = targets.find_known_target(tx, taken.target) or Target.from_name(taken.target)
    return _read_as(tx, taken, taken.reason, target)


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

    usable: providers that may take a name without their prefix; None for all.
    """
    tokens = {
        e.provider
        for e in provider_secrets.list_live_credentials(tx)
        if e.name == TOKEN_KEY_NAME
    }
    query = ModelNameQuery(
        name,
        Providers(tx).all(),
        offers,
        today=ctx.clock.now().date(),
        catalogue=ctx.catalogue,
        usable=usable,
        forced=forced,
        signed_in=tokens & {account.provider for account in SignIns(tx).all()},
    )
    return query.resolve()


def _decided_by(taken: Resolution, *rules: ResolutionRule) -> bool:
    return taken.deciding is not None and taken.deciding.rule in rules


def _reading(taken: Resolution, reason: str) -> NameReading:
    return NameReading(taken.name, taken.provider, taken.model, taken.rules, reason)


def _read_as(
    tx: Transaction,
    taken: Resolution,
    reason: str,
    target: Target,
) -> NameReading:
    unlisted = find_unlisted(tx, target)
    return replace(_reading(taken, reason), found=target, unlisted=unlisted)


def _not_found(
    ctx: ProvidersContext,
    tx: Transaction,
    taken: Resolution,
    offers: Sequence[ModelOffer],
) -> NameReading:
    """Builds the answer for an unknown name, with similar names."""
    if _decided_by(taken, ResolutionRule.OAUTH):  # the account is not signed in
        return _reading(taken, taken.reason)
    name = taken.name
    versions = match_among(name, offers, today=ctx.clock.now().date()).near
    known = {*(offer.name for offer in offers), *ctx.uses.routed_targets(tx)}
    near = tuple(dict.fromkeys((*versions, *list_nearest(name, known))))[:MOST_NEAR]
    add = "`swapgate model add PROVIDER/MODEL` adds a model"
    if taken.add_command:
        model = re.split("[/:]", name, maxsplit=1)[-1]
        near = tuple(other for other in near if is_short_for(model, other))
        add = f"`{taken.add_command}` sets up its provider"
    return replace(_reading(taken, _describe_unknown(name, near) + add), near=near)


def _describe_unknown(unknown: str, near: Sequence[str]) -> str:
    named: list[str] = []
    for name in near:
        # Omits long names instead of cutting them, so that people can copy each name.
        if len(named) < NEAREST and sum(map(len, named)) + len(name) <= ROOM:
            named.append(name)
    hint = f"nearest: {' and '.join(named)}; " if named else ""
    return f"no provider lists {unknown[:SHORT]!r}; {hint}"


def list_configured_offers(ctx: ProvidersContext) -> Sequence[tuple[str, CatalogueEntry]]:
    """Lists the models of configured providers, as (`provider/model`, entry).

    The configuration's price replaces the catalogue's.
    """
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
        offers = read_offers(ctx, tx)
    found = []
    for offer in offers:
        entry = offer.entry or CatalogueEntry(offer.kind, offer.model)
        own = providers[offer.provider].prices.get(offer.model)
        found.append((offer.name, replace(entry, price=own or entry.price)))
    return found


def search_catalogue(
    ctx: ProvidersContext, words: Sequence[str]
) -> Sequence[tuple[str, CatalogueEntry]]:
    """Finds catalogue entries whose names contain all words, in any case and order."""
    parts = [word.lower() for phrase in words for word in phrase.split()]
    fits = [e for e in ctx.catalogue if all(part in e.name.lower() for part in parts)]
    return [(fit.name, fit) for fit in sorted(fits, key=lambda offer: offer.name)]


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
    known = Providers(tx).all()
    listed = DiscoveredModels(tx).all()
    return [model for model in listed if model.source == known[model.provider].api_base]


def find_unlisted(tx: Transaction, target: Target) -> str:
    """Returns a warning if the provider's list lacks a model. Empty if there is no list."""
    names = {listed.model for listed in read_lists(tx) if listed.provider == target.provider}
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
    """Returns a model's capabilities: only those that its kind, the registry and the catalogue
    all confirm. The registry's context window takes precedence.
    """
    kind = PROVIDER_KINDS[provider.kind]
    own = provider.abilities(model)
    entry = ctx.catalogue.find(provider.kind, model)
    known = entry.capabilities if entry is not None else UNKNOWN_CAPABILITIES
    able: dict[str, Any] = {
        name: getattr(own, name) and getattr(known, name)
        for name in ("stream", "tools", "parallel_tools", "vision")
    }
    return Capabilities(
        chat=own.chat and known.chat and Endpoint.CHAT in kind.serves,
        context_window=own.context_window or known.context_window,
        **able,
    )
