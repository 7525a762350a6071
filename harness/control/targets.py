"""Targets and providers: added once, immutable from then on, found by name or id."""

import difflib
from collections.abc import Sequence

from harness.control.context import Context
from harness.domain.access import Actor, Role
from harness.domain.base_url import check_base_url
from harness.domain.capabilities import Endpoint
from harness.domain.catalogue import priced
from harness.domain.errors import InputError, NotFound
from harness.domain.provider_kinds import PROVIDER_KINDS
from harness.domain.settings import TargetSeed
from harness.domain.targets import Provider, Target
from harness.ports import Transaction


def add(ctx: Context, actor: Actor, seed: TargetSeed) -> Target:
    """Register a target. Adding the same content again changes nothing."""
    actor.require(Role.PROPOSER)
    with ctx.store.write() as tx:
        return register(ctx, tx, actor, seed)


def register(ctx: Context, tx: Transaction, actor: Actor, seed: TargetSeed) -> Target:
    """As `add`, within a unit of work. Raises NotFound when the provider is not known."""
    providers = tx.providers.all()
    if seed.provider not in providers:
        near = difflib.get_close_matches(seed.provider, providers, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise NotFound(
            f"there is no provider {seed.provider!r}{hint} "
            "Add it under `providers:` in swapgate.yaml"
        )
    target = seed.target
    if target.id not in tx.routing.targets():
        tx.routing.add_target(target)
        tx.audit.append(
            at=ctx.clock.now(),
            actor=actor.name,
            action="model.add",
            subject=f"target {target.id}",
            details=target.as_json(),
        )
    # A model that was never used had no price to be stored.
    provider = providers[target.provider]
    if (with_price := priced(provider, ctx.catalogue, [target.model])) != provider:
        _put(ctx, tx, actor, with_price)
    return target


def check_evaluable(tx: Transaction, *asked: Target) -> None:
    """Suites are run over chat. Raises InputError for a target whose provider has none."""
    providers = tx.providers.all()
    for target in asked:
        kind = providers[target.provider].kind
        # Evals ask the provider itself: nothing translates for them.
        if kind in PROVIDER_KINDS and Endpoint.CHAT not in PROVIDER_KINDS[kind].speaks:
            raise InputError(
                f"{target.name} cannot be compared: suites are run over chat, which a provider "
                f"of the kind {kind!r} does not speak"
            )


def put_provider(ctx: Context, actor: Actor, provider: Provider) -> None:
    """Add or change a provider: address, headers, prices, the name of the key's variable.

    Models in use that it gives no price have the catalogue's from then on. Raises InputError
    for an address that no provider may have.
    """
    actor.require(Role.ADMIN)
    if provider.api_base:  # a kind may have no place to be said
        check_base_url(provider.api_base, ctx.allow_addresses)
    with ctx.store.write() as tx:
        wanted = with_prices(ctx, tx, provider)
        if tx.providers.all().get(provider.name) != wanted:
            _put(ctx, tx, actor, wanted)


def with_prices(ctx: Context, tx: Transaction, provider: Provider) -> Provider:
    """As it is stored: with the catalogue's prices of models that targets and judges use."""
    used = (*tx.routing.targets().values(), *ctx.judges.values())
    models = sorted({each.model for each in used if each.provider == provider.name})
    return priced(provider, ctx.catalogue, models) if models else provider


def _put(ctx: Context, tx: Transaction, actor: Actor, provider: Provider) -> None:
    tx.providers.put(provider)
    tx.audit.append(
        at=ctx.clock.now(),
        actor=actor.name,
        action="provider.put",
        subject=f"provider {provider.name}",
        details={"kind": provider.kind, "api_base": provider.api_base},
    )


def all_targets(ctx: Context) -> Sequence[Target]:
    with ctx.store.read() as tx:
        return sorted(tx.routing.targets().values(), key=lambda target: target.name)


def find(tx: Transaction, name: str) -> Target:
    """The target with this id, or this `provider/model`.

    Raises NotFound with the nearest name, InputError when several targets have the name.
    """
    targets = tx.routing.targets()
    if name in targets:
        return targets[name]
    named = [t for t in targets.values() if name in (t.name, f"{t.provider}/{t.model}")]
    exact = [t for t in named if t.name == name]
    match exact or named:
        case [only]:
            return only
        case []:
            near = difflib.get_close_matches(name, [t.name for t in targets.values()], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise NotFound(
                f"there is no target {name!r}{hint} `swapgate model add {name}` adds it"
            )
        case several:
            ids = ", ".join(f"{t.name} ({t.id})" for t in several)
            raise InputError(f"{name!r} names several targets: {ids}. Give the id")


def known(tx: Transaction, name: str) -> Target | None:
    """As `find`, None where nothing has the name. Raises InputError when several have it."""
    try:
        return find(tx, name)
    except NotFound:
        return None


def plain(name: str) -> Target | None:
    """What `provider/model` would be, registered or not; None for another name."""
    provider, slash, model = name.partition("/")
    return Target(provider, model) if slash and provider and model else None


def find_or_register(ctx: Context, tx: Transaction, actor: Actor, name: str) -> Target:
    """`find`, and where nothing has the name, register it as a plain `provider/model`."""
    try:
        return find(tx, name)
    except NotFound:
        provider, slash, model = name.partition("/")
        if not (slash and provider in tx.providers.all()):
            raise
        return register(ctx, tx, actor, TargetSeed(provider, model))
