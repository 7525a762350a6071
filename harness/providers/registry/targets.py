"""Registers targets, and stores providers with their prices. After a provider moves, earlier
results prove nothing about the model at the new address (ADR 29), but targets that already
serve stay in service.

A target never changes: its id is the hash of its content. `named_models` reads the names that
people type. `registered_providers` has the use cases of providers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from harness.frame.configuration.setting_values import change_settings, check_settings
from harness.frame.errors import Conflict, InputError, NotAllowed, NotFound
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.frame.suggestions import did_you_mean
from harness.providers.api_base_rules import (
    check_api_base,
    check_api_base_path,
)
from harness.providers.calls.guarded_http import check_headers
from harness.providers.context import ProvidersContext
from harness.providers.credential import check_key_variable
from harness.providers.kinds import PROVIDER_KINDS, check_kind
from harness.providers.models.capabilities import Endpoint
from harness.providers.models.catalogue import with_catalogue_prices
from harness.providers.records import DiscoveredModels, Providers, Targets
from harness.providers.registry.provider_secrets import decrypt_headers, encrypt_headers
from harness.providers.target import (
    JsonObject,
    Price,
    Provider,
    ProviderMove,
    Target,
    check_extra_body,
    classes_of_provider,
)
from harness.providers.target import find_price as find_target_price
from harness.providers.target_price import TargetPrice, read_price


def find_price(tx: Transaction, target: Target | None) -> Price | None:
    """Returns the price of a target at its provider; None if it is unknown, or without a
    target.
    """
    return find_target_price(Providers(tx).all(), target.name) if target else None


def find_list_price(
    ctx: ProvidersContext,
    tx: Transaction,
    target: Target | None,
) -> Price | None:
    """Returns the known or listed price of a target; None if it is missing, or without a
    target.
    """
    return load_price(ctx, tx, target).price if target else None


def load_price(
    ctx: ProvidersContext,
    tx: Transaction,
    target: Target,
) -> TargetPrice:
    """Loads the price of a target, which need not be registered.

    Looks at the provider's own price, then the catalogue, then the provider's list.
    """
    providers = Providers(tx).all()
    provider = providers.get(target.provider)
    listed_price = (
        None
        if provider is None
        else fill_prices(ctx, tx, provider, [target.model]).prices.get(target.model)
    )
    return read_price(providers, target.name, listed_price)


def fill_prices(
    ctx: ProvidersContext,
    tx: Transaction,
    provider: Provider,
    models: Iterable[str],
) -> Provider:
    """Adds a provider's missing prices from the catalogue and its list of models, because the
    router reads only the provider.
    """
    names = list(models)
    priced = with_catalogue_prices(provider, ctx.catalogue, names)
    offers = [
        DiscoveredModels(tx).find(provider.name, model)
        for model in names
        if model not in priced.prices
    ]
    listed_prices = {
        offer.model: offer.price
        for offer in offers
        if offer and offer.price and offer.source == provider.api_base
    }
    return (
        replace(priced, prices={**priced.prices, **listed_prices}) if listed_prices else priced
    )


def add_target(
    ctx: ProvidersContext,
    actor: Actor,
    seed: Target,
) -> Target:
    """Registers a target in a transaction of its own. Needs a proposer. Raises NotFound."""
    actor.require(Role.PROPOSER)
    with ctx.store.write() as tx:
        return register_target(ctx, tx, actor, seed)


def register_target(
    ctx: ProvidersContext,
    tx: Transaction,
    actor: Actor,
    target: Target,
) -> Target:
    """Stores a target if it is new, and its model's price. Returns the target.

    The caller checks the actor's role. Raises NotFound for an unknown provider.
    """
    providers = Providers(tx).all()
    if target.provider not in providers:
        hint = did_you_mean(target.provider, providers, otherwise=".")
        raise NotFound(
            f"there is no provider {target.provider!r}{hint} "
            "Add it under `providers:` in swapproof.yaml"
        )
    if target.id not in Targets(tx).all():
        Targets(tx).add(target)
        AuditLog(tx).append(actor, "model.add", f"target {target.id}", target.as_json())
    store_prices(ctx, tx, actor, providers[target.provider], [target.model])
    return target


def store_prices(
    ctx: ProvidersContext,
    tx: Transaction,
    actor: Actor,
    provider: Provider,
    models: Iterable[str],
) -> bool:
    """Stores a stored provider's missing prices of models, as far as they are known by now.
    Returns whether there was one.

    Called whenever a model may get its price: with a new target, with a new list of the
    provider's models, and at the start, because the catalogue may be new. So every page,
    command and guardrail knows the same price.
    """
    priced = fill_prices(ctx, tx, provider, models)
    if priced == provider:
        return False
    if actor == SYSTEM:
        # As for the scheduled read of a list: it decides nothing, so it needs no audit event.
        Providers(tx).put(priced)
    else:
        _store_provider(tx, actor, priced)
    return True


def store_price(tx: Transaction, actor: Actor, target: Target, price: Price) -> None:
    """Stores the price of a target's model at its provider. The caller checks role and range.

    Raises NotFound for an unknown provider.
    """
    provider = require_provider(tx, target.provider)
    Providers(tx).put(replace(provider, prices={**provider.prices, target.model: price}))
    details = {"model": target.model, "price": price.as_json()}
    AuditLog(tx).append(actor, "provider.price", f"provider {provider.name}", details)


def require_provider(tx: Transaction, name: str) -> Provider:
    """Returns a provider by its name. Raises NotFound, which lists the configured names."""
    providers = Providers(tx).all()
    if name not in providers:
        names = ", ".join(providers) or "none"
        raise NotFound(f"there is no provider {name!r}; configured: {names}")
    return providers[name]


@dataclass(frozen=True, slots=True)
class ProviderChange:
    """A change of a provider. None keeps the value; for a new provider, it is the default.

    settings: the changed values of declared settings by name, such as `api_base`; see
    `change_settings`. extra_body: fixed once results depend on it (`put_provider`).
    """

    kind: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    extra_headers: Mapping[str, str] | None = field(default=None, repr=False)
    extra_body: JsonObject | None = None
    reason: str = ""  # required to move a provider that a route uses (`record_move`)


def change_of_provider(
    ctx: ProvidersContext,
    current: Provider,
    change: ProviderChange,
) -> Provider:
    """Applies a change; stores nothing.

    Another kind counts as a move (`with_move`): another API may answer, even at this address.
    Raises InputError for an unknown kind, invalid headers, an invalid address, a number outside
    its range, and a key in the place of its variable's name.
    Raises NotAllowed for another address if the provider may see a data class
    (`check_address`).
    """
    changed = change_settings(current, change.settings)
    if change.kind is not None:
        changed = replace(changed, kind=check_kind(change.kind))
    check_settings(changed)
    check_key_variable(changed.api_key_env)
    if change.extra_headers is not None:
        check_headers(change.extra_headers)
        changed = replace(changed, extra_headers=change.extra_headers, sealed_headers={})
    if change.extra_body is not None:
        changed = replace(changed, extra_body=change.extra_body)
    check_address(ctx, current.name, current.api_base, changed.api_base)
    check_api_base_path(changed.kind, changed.api_base)
    check_api_base(changed.api_base, ctx.allow_addresses)
    return changed


def check_address(
    ctx: ProvidersContext,
    provider: str,
    old_address: str,
    new_address: str,
) -> None:
    """Refuses a new address for a provider that may see a data class, because people gave the
    permission for the present address. Raises NotAllowed.
    """
    classes = classes_of_provider(ctx.data_classes, provider)
    if classes and new_address != old_address:
        raise NotAllowed(
            f"provider {provider!r} may see {', '.join(classes)} data only at its present "
            f"address. To move it, change `providers.{provider}.api_base` in swapproof.yaml, "
            "check `data_classes:`, and run `swapproof config apply`"
        )


def provider_of(tx: Transaction, target: Target) -> Provider:
    """Returns a target's provider. Raises NotFound for a removed provider."""
    provider = Providers(tx).all().get(target.provider)
    if provider is None:
        raise NotFound(
            f"there is no provider {target.provider!r} any more, which {target.name} needs: "
            "`swapproof provider add` brings it back"
        )
    return provider


def check_evaluable(tx: Transaction, *targets: Target) -> None:
    """Checks that the targets' providers have chat, which suites need. Raises InputError."""
    for target in targets:
        kind = provider_of(tx, target).kind
        if kind in PROVIDER_KINDS and Endpoint.CHAT not in PROVIDER_KINDS[kind].serves:
            raise InputError(
                f"{target.name} cannot be compared: suites need chat, which a provider of the "
                f"kind {kind!r} does not have"
            )


def put_provider(
    ctx: ProvidersContext,
    actor: Actor,
    provider: Provider,
    reason: str = "",
) -> None:
    """Adds or changes a provider. Does nothing if all values are the same.

    Args:
        reason: required to move a provider that a route uses.

    Needs an admin.
    Raises Conflict if results depend on its `extra_body`.
    Raises InputError for invalid values, and without a required reason.
    """
    actor.require(Role.ADMIN)
    if provider.api_base:  # some kinds have no address
        check_api_base(provider.api_base, ctx.allow_addresses)
        check_api_base_path(provider.kind, provider.api_base)
    check_extra_body(provider.extra_body)
    check_headers(provider.extra_headers)
    with ctx.store.write() as tx:
        priced = add_missing_prices(ctx, tx, provider)
        existing = Providers(tx).all().get(provider.name)
        if existing is not None and existing.extra_body != priced.extra_body:
            _check_extra_body_unused(ctx, tx, existing)
        if not has_same_values(ctx, existing, priced):
            moved = record_move(ctx, tx, actor, existing, priced, reason)
            _store_provider(tx, actor, encrypt_headers(moved, ctx.cipher))


def has_same_values(
    ctx: ProvidersContext,
    existing: Provider | None,
    wanted: Provider,
) -> bool:
    """Tells whether two providers have the same values, with headers decrypted.

    Encryption gives another ciphertext each time, so stored headers cannot be compared.
    """
    return existing is not None and decrypt_headers(existing, ctx.cipher) == decrypt_headers(
        wanted, ctx.cipher
    )


def _check_extra_body_unused(
    ctx: ProvidersContext,
    tx: Transaction,
    provider: Provider,
) -> None:
    """Raises Conflict if results depend on `extra_body`, which a target's id does not cover."""
    targets_by_id = Targets(tx).all()
    uses = [f"route {route}" for route in routes_using(ctx, tx, provider.name)]
    uses += [
        f"judge of suite {suite}"
        for suite, judge in ctx.judges.items()
        if judge.provider == provider.name
    ]
    target_ids = {
        id_ for id_, target in targets_by_id.items() if target.provider == provider.name
    }
    if ctx.uses.run_times(tx, target_ids):
        uses.append("eval runs")
    if uses:
        raise Conflict(
            f"extra_body of provider {provider.name!r} cannot change: every request carries "
            f"it, and existing results depend on it ({', '.join(uses)}). Add another provider "
            "with the new value and propose its model, or set a target's parameters"
        )


def add_missing_prices(
    ctx: ProvidersContext,
    tx: Transaction,
    provider: Provider,
) -> Provider:
    """Adds missing prices for the models of the provider's targets and judges."""
    models = list_used_models(ctx, tx, provider)
    return fill_prices(ctx, tx, provider, models) if models else provider


def list_used_models(ctx: ProvidersContext, tx: Transaction, provider: Provider) -> list[str]:
    """Lists the models of a provider's targets and judges."""
    targets_and_judges = (*Targets(tx).all().values(), *ctx.judges.values())
    return sorted(
        {target.model for target in targets_and_judges if target.provider == provider.name}
    )


def _store_provider(
    tx: Transaction,
    actor: Actor,
    provider: Provider,
) -> None:
    Providers(tx).put(provider)
    details = {
        "kind": provider.kind,
        "api_base": provider.api_base,
        "extra_body": dict(provider.extra_body),
        **move_details(provider),
    }
    AuditLog(tx).append(actor, "provider.put", f"provider {provider.name}", details)


def move_details(provider: Provider) -> dict[str, object]:
    """Returns the audit details of a provider's last move; empty if it never moved."""
    if (move := provider.moved) is None:
        return {}
    return {
        "moved_at": move.at.isoformat(),
        "moved_by": move.by,
        "reason": move.reason,
    }


def find_target(tx: Transaction, name: str) -> Target:
    """Finds a target by id or `provider/model`. Raises NotFound with the nearest name,
    InputError if several targets have the name.
    """
    targets = Targets(tx).all()
    if name in targets:
        return targets[name]
    matches = [
        target
        for target in targets.values()
        if name in (target.name, f"{target.provider}/{target.model}")
    ]
    exact = [target for target in matches if target.name == name]
    match exact or matches:
        case [only]:
            return only
        case []:
            hint = did_you_mean(
                name, [target.name for target in targets.values()], otherwise="."
            )
            raise NotFound(
                f"there is no target {name!r}{hint} `swapproof model add {name}` adds it"
            )
        case several:
            ids = ", ".join(f"{target.name} ({target.id})" for target in several)
            raise InputError(f"{name!r} names several targets: {ids}. Give the id")


def find_known_target(tx: Transaction, name: str) -> Target | None:
    """Finds a target as `find_target`; None instead of NotFound. Raises InputError."""
    try:
        return find_target(tx, name)
    except NotFound:
        return None


def record_move(
    ctx: ProvidersContext,
    tx: Transaction,
    actor: Actor,
    existing: Provider | None,
    wanted: Provider,
    reason: str,
) -> Provider:
    """Records a provider's move. Raises InputError without a reason if a route uses it.

    A move is a change of kind, address or headers, after which another model may answer. Its
    time is never before the newest run of the provider, even if somebody set the clock back.

    Args:
        existing: the stored provider; None for a new one. A new provider counts as moved if
            targets of a removed provider of that name exist.
    """
    if existing is not None and decrypt_headers(existing, ctx.cipher).same_place(
        decrypt_headers(wanted, ctx.cipher)
    ):
        return replace(wanted, moved=existing.moved)
    target_ids = {
        id_ for id_, target in Targets(tx).all().items() if target.provider == wanted.name
    }
    if existing is None and not target_ids:
        return wanted
    if routes := routes_using(ctx, tx, wanted.name):
        action = f"to move provider {wanted.name!r}, which serves route {', '.join(routes)},"
        require_reason(reason, action)
    moved_at = max([ctx.clock.now(), *ctx.uses.run_times(tx, target_ids)])
    return replace(wanted, moved=ProviderMove(moved_at, actor.name, reason.strip()))


def routes_using(ctx: ProvidersContext, tx: Transaction, provider: str) -> list[str]:
    """Lists the routes that use a provider in any role, by name."""
    return routes_by_provider(ctx, tx).get(provider, [])


def routes_by_provider(ctx: ProvidersContext, tx: Transaction) -> Mapping[str, list[str]]:
    """Lists the routes of each provider, by name."""
    routes: dict[str, list[str]] = {}
    for name, targets in ctx.uses.routed_targets(tx).items():
        for provider in {target.provider for target in targets}:
            routes.setdefault(provider, []).append(name)
    return routes


def find_move_since(
    ctx: ProvidersContext,
    tx: Transaction,
    target: str,
    began: datetime,
) -> Provider | None:
    """Returns the provider of a target if it moved after a run began; else None.

    Args:
        target: a target's or a judge's id.
        began: the run's start. A move at exactly that time counts.
    """
    target_or_judge = Targets(tx).all().get(target)
    if target_or_judge is None:
        target_or_judge = next(
            (judge for judge in ctx.judges.values() if judge.id == target),
            None,
        )
    provider = (
        Providers(tx).all().get(target_or_judge.provider)
        if target_or_judge is not None
        else None
    )
    if provider is None or provider.moved is None or began > provider.moved.at:
        return None
    return provider
