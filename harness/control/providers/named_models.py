"""Finds the model that a person's or an agent's words mean. Proposals, routes, agents, tools
and commands all read names here, so that a name means the same model everywhere.

A name is read in this order:

1. a registered target, by its id or its name
2. with a provider or a kind in front: that provider's model, else the name as it is
3. exactly a model that a provider with a key offers, by the order of `name_resolution`
4. the one model of these providers that the words fit (`model_lookup.match_among`)
5. the name as it is, where the provider that takes it never said which models it has
"""

import re
from collections.abc import Sequence
from typing import Final

from harness.control.context import Context
from harness.control.providers import model_lookup, provider_secrets
from harness.control.providers.model_lookup import ModelMatch, ModelOffer
from harness.control.routing import targets
from harness.domain.errors import AmbiguousName, InputError, NotFound
from harness.domain.operations.access import Actor
from harness.domain.providers.name_resolution import Resolution, ResolutionRule, RuleOutcome
from harness.domain.routing.target import Target
from harness.domain.settings import TargetSeed
from harness.store.transaction import Transaction

SHORT: Final = 28  # characters of what was written, in an error of at most 200
ROOM: Final = 62  # characters of the nearest names together, as above
UNKNOWN: Final = "model_not_found"  # an error's code
NEAREST: Final = 2  # names, in an error
_NAMES_PROVIDER: Final = (ResolutionRule.PREFIX, ResolutionRule.OAUTH)


def find_model(ctx: Context, tx: Transaction, words: str) -> Target:
    """Finds the target that the words mean, registered or not.

    Raises NotFound with the nearest names, AmbiguousName with the names to choose from,
    InputError for an empty name.
    """
    name = words.strip()
    if not name:
        raise InputError("the model's name is empty: write PROVIDER/MODEL")
    known = targets.find_known_target(tx, name)
    if known is not None:
        targets.provider_of(tx, known)
        return known
    full = _full_name(ctx, tx, name)
    return targets.find_known_target(tx, full) or Target.from_name(full)


def register_model(ctx: Context, tx: Transaction, actor: Actor, words: str) -> Target:
    """Finds the target that the words mean, and registers it. Raises as `find_model`."""
    target = find_model(ctx, tx, words)
    if target.id in tx.routing.targets():
        return target
    return targets.register_target(ctx, tx, actor, TargetSeed(target.provider, target.model))


def _full_name(ctx: Context, tx: Transaction, name: str) -> str:
    usable = provider_secrets.find_usable(ctx, tx)
    every = model_lookup.read_offers(ctx, tx)
    offers = [offer for offer in every if offer.provider in usable]
    taken = model_lookup.apply_rules(ctx, tx, name)
    if _deciding_rule(taken) in _NAMES_PROVIDER:
        return _at_named_provider(ctx, tx, name, taken, every)
    taken = model_lookup.apply_rules(ctx, tx, name, among=usable)
    # A vendor in front is part of the name: without it another provider would be taken.
    as_written = taken.target if taken.model == name else None
    if as_written and any(offer.name == as_written for offer in offers):
        return as_written
    match = _match(ctx, name, offers)
    if match.found is not None:
        return match.found.name
    elsewhere = model_lookup.match_among(name, every, today=ctx.clock.now().date()).found
    if elsewhere is not None:
        raise NotFound(
            f"{name[:SHORT]!r} is {elsewhere.name}, whose provider has no key: "
            f"`swapgate provider key set {elsewhere.provider}`",
            code=UNKNOWN,
        )
    is_one_word = len(name.split()) == 1
    if as_written and is_one_word and not _lists_models(taken.provider, offers):
        return as_written
    raise _not_found(ctx, tx, name, match)


def _at_named_provider(
    ctx: Context, tx: Transaction, name: str, taken: Resolution, every: Sequence[ModelOffer]
) -> str:
    if taken.target is None:
        raise NotFound(taken.reason, code=UNKNOWN)
    offers = [offer for offer in every if offer.provider == taken.provider]
    is_offered = any(offer.name == taken.target for offer in offers)
    if is_offered or not _lists_models(taken.provider, offers):
        return taken.target
    match = _match(ctx, f"{taken.provider}/{taken.model}", offers)
    # A full name may be a short one of a model; a typing error must not choose another model.
    if match.found is not None and (
        name != taken.target or _parts(taken.target) <= _parts(match.found.name)
    ):
        return match.found.name
    if len(name.split()) > 1:
        raise _not_found(ctx, tx, name, match)
    return taken.target


def _parts(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", name.lower()))


def _match(ctx: Context, name: str, offers: Sequence[ModelOffer]) -> ModelMatch:
    """Raises AmbiguousName."""
    match = model_lookup.match_among(name, offers, today=ctx.clock.now().date())
    if match.candidates:
        names = [candidate.name for candidate in match.candidates]
        said = f"{name[:SHORT]!r} may be one of {', '.join(names)}: name one"
        raise AmbiguousName(said, candidates=names)
    return match


def _deciding_rule(taken: Resolution) -> ResolutionRule | None:
    decided = (RuleOutcome.TOOK, RuleOutcome.REFUSED)
    return next((result.rule for result in taken.rules if result.outcome in decided), None)


def _lists_models(provider: str | None, offers: Sequence[ModelOffer]) -> bool:
    """Whether the catalogue or the provider itself says which models there are."""
    return any(offer.entry is not None for offer in offers if offer.provider == provider)


def _not_found(ctx: Context, tx: Transaction, name: str, match: ModelMatch) -> NotFound:
    every = dict.fromkeys((*match.near, *model_lookup.find_near(ctx, tx, name)))
    near: list[str] = []
    for one in every:
        # A name that is cut cannot be copied.
        if len(near) < NEAREST and sum(map(len, near)) + len(one) <= ROOM:
            near.append(one)
    hint = f"near are {' and '.join(near)}; " if near else ""
    return NotFound(
        f"no provider serves {name[:SHORT]!r}; {hint}`swapgate model add PROVIDER/MODEL` "
        "adds a model",
        code=UNKNOWN,
    )
