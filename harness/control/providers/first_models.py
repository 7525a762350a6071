"""A provider that nobody has configured yet, added with its first model."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from harness.control.context import Context
from harness.control.routing import data_class_checks, targets
from harness.domain.errors import Conflict, InputError, NotFound
from harness.domain.operations.access import Actor, Role
from harness.domain.providers.api_base_rules import api_base_example
from harness.domain.providers.kinds import PROVIDER_KINDS, ProviderGroup, check_provider_name
from harness.domain.routing.target import Provider, Target
from harness.domain.settings import TargetSeed


@dataclass(frozen=True, slots=True)
class RegisteredTarget:
    """added: the provider, where it was not there before. needs_key: without one, no request of
    its kind can succeed.
    """

    target: Target
    provider: Provider
    added: bool
    needs_key: bool


def register_with_provider(
    ctx: Context, actor: Actor, seed: TargetSeed, *, api_base: str = ""
) -> RegisteredTarget:
    """Register a target, and its provider where that is a kind's name and not configured.

    api_base: for the new provider, where it is not the kind's. Raises InputError or NotFound
    where the provider cannot be made of its name, Conflict where another is there, NotAllowed
    for an own address under a name that may see a data class.
    """
    actor.require(Role.PROPOSER)
    with ctx.store.read() as tx:
        known = tx.providers.all()
    there = known.get(seed.provider)
    if there is not None and api_base and api_base != there.api_base:
        raise Conflict(
            f"provider {there.name} is configured at {there.api_base}: "
            f"`swapgate provider set {there.name} --api-base {api_base}` changes that"
        )
    provider = there or default_provider(seed.provider, known, api_base=api_base)
    if there is None:
        place = kind.api_base if (kind := PROVIDER_KINDS.get(seed.provider)) else ""
        data_class_checks.check_address(ctx, provider.name, place, provider.api_base)
        targets.put_provider(ctx, actor, provider)
    kind = PROVIDER_KINDS.get(provider.kind)
    return RegisteredTarget(
        targets.add_target(ctx, actor, seed),
        provider,
        added=there is None,
        needs_key=kind is not None and kind.needs_key,
    )


def default_provider(name: str, known: Iterable[str] = (), *, api_base: str = "") -> Provider:
    """The provider that a kind's name means: in its usual place, with its usual key variable.

    Another name with an address is an OpenAI-compatible server. known: names, for a guess.
    """
    check_provider_name(name)
    kind = PROVIDER_KINDS.get(name)
    if kind is None and not api_base:
        near = difflib.get_close_matches(name, [*known, *PROVIDER_KINDS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise NotFound(
            f"there is no provider {name!r}, and no kind of that name{hint}. Add it under "
            "`providers:` in swapgate.yaml, or give --api-base of an OpenAI-compatible server"
        )
    if kind is not None and kind.group is ProviderGroup.OAUTH:
        raise InputError(
            f"{name} is a person's account, and they sign in first: "
            f"`swapgate credential login {name}`"
        )
    base = api_base or (kind.api_base if kind else "")
    if not base:
        example = api_base_example(name) or "URL"
        raise InputError(
            f"a provider of kind {name!r} has no usual place: give --api-base {example}"
        )
    where = urlsplit(base)
    if where.scheme not in ("http", "https") or not where.hostname:
        raise InputError(f"{base!r} is no http or https address")
    key_env = kind.key_env if kind else ""
    return Provider(name, kind.name if kind else "custom", base, key_env or None)
