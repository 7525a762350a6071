"""Adds a provider with its key and asks it at once whether it works, for people who fill in a
form; also stores another key of one that is there, and asks again.
"""

from dataclasses import dataclass, field

from harness.control.context import Context
from harness.control.providers import checks, credentials, registry
from harness.control.providers.credentials import CredentialChange
from harness.control.providers.registry import ProviderChange
from harness.domain.errors import Conflict
from harness.domain.operations.access import Actor, Role
from harness.domain.providers.probe import ProviderCheck


@dataclass(frozen=True, slots=True)
class NewProvider:
    """What a person says of a provider that is to be added."""

    kind: str
    name: str = ""  # empty for the kind's
    api_base: str = ""  # empty for the kind's
    key: str = field(default="", repr=False)  # empty where it needs none, or has a variable


def add_provider(ctx: Context, actor: Actor, wanted: NewProvider) -> ProviderCheck | None:
    """Add a provider and its key, then ask it. None where this process asks no provider.

    Raises Conflict where it is there, InputError for a name, an address or a key that cannot
    be, NotAllowed for anybody but an admin. What its check finds refuses nothing: the provider
    stays, so that its key or its address can be mended.
    """
    actor.require(Role.ADMIN)
    name = wanted.name or wanted.kind
    with ctx.store.read() as tx:
        if name in tx.providers.all():
            raise Conflict(f"there is a provider {name!r} already: give this one another name")
    base = wanted.api_base or None
    if wanted.key:
        # In one unit of work: a key that cannot be stored leaves no provider behind.
        made = CredentialChange(value=wanted.key, kind=wanted.kind, api_base=base)
        credentials.put_credential(ctx, actor, name, made)
    else:
        change = ProviderChange(wanted.kind, base)
        registry.change_provider(ctx, actor, name, change, create=True)
    return _check(ctx, actor, name)


def replace_key(
    ctx: Context, actor: Actor, name: str, change: CredentialChange
) -> ProviderCheck | None:
    """Store a provider's key, then ask the provider. Raises as `put_credential` does."""
    credentials.put_credential(ctx, actor, name, change)
    return _check(ctx, actor, name)


def _check(ctx: Context, actor: Actor, name: str) -> ProviderCheck | None:
    return None if ctx.door is None else checks.check_provider(ctx, actor, name)
