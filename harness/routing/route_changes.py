"""`apply_change` is the only way from one version of a route to the next.

Each change is a class, and a change with a new target contains its proof. The function is pure:
it checks that the proof belongs to the route. `harness.routing.records.routes` checks that the
proof is stored and signed. Use cases check the roles of people.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from harness.frame.errors import IllegalTransition, InputError, ProofRefused
from harness.gate.online.guardrails import DEFAULT_EXPOSURE_RULE, ExposureRule
from harness.gate.verdict import Passed
from harness.routing.agent import LITERAL_MARK
from harness.routing.evidence import ChainProof, FormerTarget, Waiver
from harness.routing.route_settings import DEFAULT_ROUTE_SETTINGS, RouteSettings
from harness.routing.table import BUCKETS, Canary, Handover, Route, RouteRecord

_INVALID_CHARACTERS: Final = re.compile(r"[\s/?#]")


def spell_route_name(model: str) -> str:
    """Turns a model's name into a valid route name."""
    return _INVALID_CHARACTERS.sub("-", model).lstrip(LITERAL_MARK)


def check_route_name(name: str) -> None:
    """Checks a route's name. Raises InputError if clients cannot send it, and if it begins with
    LITERAL_MARK.
    """
    if name.startswith(LITERAL_MARK):
        raise InputError(
            f"{name!r} is not a route name: names that begin with {LITERAL_MARK!r} are for "
            "models that agents were granted"
        )
    if not name or _INVALID_CHARACTERS.search(name):
        raise InputError(f"{name!r} is not a route name: leave out spaces, '/', '?' and '#'")


def check_chain(
    route: str,
    incumbent: str,
    fallbacks: Sequence[str],
    capable: Sequence[str],
) -> None:
    """Checks a chain. Raises InputError if it names a target twice, or lacks a capable
    target.
    """
    chain = (incumbent, *fallbacks)
    if len(set(chain)) < len(chain):
        raise InputError(f"route {route!r} names a target twice: {', '.join(chain)}")
    unknown = set(capable) - set(fallbacks)
    if unknown:
        raise InputError(
            f"route {route!r}: only fallbacks can be capable, and these are not fallbacks: "
            f"{', '.join(sorted(unknown))}"
        )


def check_chain_proof(
    route: str,
    target: str,
    proof: ChainProof | None,
) -> None:
    """Checks that the proof is for this target and route. Raises ProofRefused."""
    match proof:
        case None:
            raise ProofRefused(
                f"route {route!r}: {target} is new in the chain and has no proof; it needs "
                "a passed verdict for this route, or a waiver"
            )
        case Passed():
            matches = (proof.route, proof.candidate) == (route, target)
        case Waiver():
            matches = (proof.route, proof.target) == (route, target)
        case FormerTarget():
            matches = proof.target == target
        case _:
            assert_never(proof)
    if not matches:
        raise ProofRefused(
            f"route {route!r}: the proof given for {target} is for another target or route"
        )


@dataclass(frozen=True, slots=True)
class CreateRoute:
    """Creates version 1: its targets are the route's baseline."""

    route: str
    incumbent: str
    fallbacks: tuple[str, ...] = ()
    settings: RouteSettings = DEFAULT_ROUTE_SETTINGS


@dataclass(frozen=True, slots=True)
class StartCanary:
    """Opens a canary: the proven candidate serves a share of the callers.

    weight_bps: the share in basis points; later changes can only raise it.
    """

    route: str
    proof: Passed
    rollout: str
    weight_bps: int
    salt: str
    unit_rule: ExposureRule = DEFAULT_EXPOSURE_RULE
    handover: Handover | None = None


@dataclass(frozen=True, slots=True)
class RaiseWeight:
    """Raises the canary's share, never lowers it."""

    route: str
    rollout: str
    weight_bps: int
    handover: Handover | None = None


@dataclass(frozen=True, slots=True)
class PromoteCanary:
    """Makes the canary the incumbent, with the proof of its target."""

    route: str
    proof: Passed
    # Share of the previous incumbent during the bake; 0 for no bake.
    holdback_bps: int = 0


@dataclass(frozen=True, slots=True)
class EndBake:
    """Ends the bake: the previous incumbent gets no more requests. Needs no proof."""

    route: str
    rollout: str


@dataclass(frozen=True, slots=True)
class AbortCanary:
    """Removes the canary. Needs no proof, because going back is always allowed."""

    route: str
    rollout: str


@dataclass(frozen=True, slots=True)
class RestoreIncumbent:
    """Restores a former incumbent of this route; the store checks that it was one."""

    route: str
    incumbent: str


@dataclass(frozen=True, slots=True)
class ServeByWaiver:
    """Makes a target the incumbent by a break-glass, whose waiver is its only proof."""

    route: str
    waiver: Waiver
    break_glass: str  # the break-glass's id


@dataclass(frozen=True, slots=True)
class ChangeSettings:
    """Replaces a route's settings. No target changes."""

    route: str
    settings: RouteSettings


@dataclass(frozen=True)
class SetChain:
    """Replaces the fallbacks, in order. Incumbent and canary do not change."""

    route: str
    fallbacks: tuple[str, ...]
    capable: tuple[str, ...] = ()  # fallbacks that are good enough for high stakes
    # By target id. A new target needs a proof; for a known target it replaces the evidence.
    proofs: Mapping[str, ChainProof] = field(default_factory=dict)


TableChange = (
    CreateRoute
    | StartCanary
    | RaiseWeight
    | PromoteCanary
    | EndBake
    | AbortCanary
    | RestoreIncumbent
    | ServeByWaiver
    | ChangeSettings
    | SetChain
)

CHANGE_KINDS: Mapping[type, str] = {
    CreateRoute: "baseline",
    StartCanary: "canary",
    RaiseWeight: "weight",
    PromoteCanary: "promotion",
    AbortCanary: "abort",
    RestoreIncumbent: "restore",
    # The database has the same rules for both: no verdict, no canary and no bake.
    ServeByWaiver: "restore",
    ChangeSettings: "settings",
    # The database has the same rule for all three: incumbent and canary do not change.
    SetChain: "settings",
    EndBake: "settings",
}


def standing_incumbents(history: Sequence[RouteRecord]) -> list[str]:
    """Lists the incumbents whose promotion was not undone, oldest first."""
    chain: list[str] = []
    for record in reversed(history):
        incumbent = record.route.incumbent
        if record.kind == CHANGE_KINDS[RestoreIncumbent] and incumbent in chain:
            while chain[-1] != incumbent:
                chain.pop()
        elif chain[-1:] != [incumbent]:
            chain.append(incumbent)
    return chain


def find_rollback_target(history: Sequence[RouteRecord]) -> str | None:
    """Returns the id of the target that a rollback restores, or None.

    It is the incumbent before the last promotion in force.

    Args:
        history: newest first.
    """
    # Each rollback undoes one more promotion, so a second rollback does not undo the first.
    return next(iter(standing_incumbents(history)[-2:-1]), None)


def apply_change(route: Route | None, change: TableChange) -> Route:  # noqa: C901, PLR0911, PLR0912 - one branch per class
    """Returns the route's next version, whose number is higher by one.

    Pure: it stores nothing, and does not depend on the time. Raises IllegalTransition if the
    change does not apply to this version, InputError for a bad name or chain, ProofRefused for
    a proof of another route, incumbent or target.
    """
    if isinstance(change, CreateRoute):
        return _create(route, change)
    if route is None:
        raise IllegalTransition(f"there is no route {change.route!r}; create it first")
    successor = replace(route, version=route.version + 1)
    match change:
        case StartCanary():
            return _start_canary(successor, change)
        case RaiseWeight():
            canary = _require_canary(route, change.rollout)
            if not canary.weight_bps < change.weight_bps <= BUCKETS:
                raise IllegalTransition(
                    f"route {route.name!r}: a canary's weight can only rise above its present "
                    f"{canary.weight_bps} bps, not change to {change.weight_bps}"
                )
            raised_canary = replace(
                canary,
                weight_bps=change.weight_bps,
                handover=change.handover,
            )
            return replace(successor, canary=raised_canary)
        case PromoteCanary():
            return _promote(successor, change)
        case EndBake():
            if route.holdback is None or route.holdback.rollout != change.rollout:
                raise IllegalTransition(
                    f"route {route.name!r} has no bake of rollout {change.rollout}"
                )
            return replace(successor, holdback=None)
        case AbortCanary():
            canary = _require_canary(route, change.rollout)
            return replace(_withdraw_proof(successor, canary.target), canary=None)
        case RestoreIncumbent():
            return replace(
                _withdraw_proof(successor, route.incumbent),
                incumbent=change.incumbent,
                canary=None,
                holdback=None,
                break_glass=None,
            )
        case ServeByWaiver(waiver=waiver):
            return _serve_by_waiver(successor, waiver, change.break_glass)
        case ChangeSettings():
            return replace(successor, settings=change.settings)
        case SetChain():
            return _set_chain(successor, change)
        case _:
            assert_never(change)


def _withdraw_proof(successor: Route, target: str) -> Route:
    """Drops the proof of a target that a rollback takes off the route, so that routers follow
    with this version. The control process writes later proofs.
    """
    settings = successor.settings
    proven = tuple(spare for spare in settings.proven if spare.target != target)
    return replace(successor, settings=replace(settings, proven=proven))


def _create(route: Route | None, change: CreateRoute) -> Route:
    """Creates version 1.

    Raises IllegalTransition if the route exists, InputError for a bad name or chain.
    """
    if route is not None:
        raise IllegalTransition(f"route {change.route!r} exists, at version {route.version}")
    check_route_name(change.route)
    check_chain(
        change.route,
        change.incumbent,
        change.fallbacks,
        change.settings.capable,
    )
    return Route(
        name=change.route,
        version=1,
        incumbent=change.incumbent,
        fallbacks=change.fallbacks,
        settings=change.settings,
    )


def _set_chain(successor: Route, change: SetChain) -> Route:
    """Replaces the fallbacks. Checks the proofs of new fallbacks, and proofs that replace older
    evidence.
    """
    check_chain(successor.name, successor.incumbent, change.fallbacks, change.capable)
    for target in change.fallbacks:
        if target in change.proofs or target not in successor.fallbacks:
            proof = change.proofs.get(target)
            check_chain_proof(successor.name, target, proof)
            if isinstance(proof, Passed):
                _check_proof(successor, proof)
    settings = replace(successor.settings, capable=change.capable)
    return replace(successor, fallbacks=change.fallbacks, settings=settings)


def _serve_by_waiver(
    successor: Route,
    waiver: Waiver,
    break_glass: str,
) -> Route:
    check_chain_proof(successor.name, waiver.target, waiver)
    if successor.experiment is not None or successor.break_glass is not None:
        raise IllegalTransition(
            f"route {successor.name!r} has a canary, a bake or a break-glass: end it first"
        )
    return replace(successor, incumbent=waiver.target, break_glass=break_glass)


def _start_canary(successor: Route, change: StartCanary) -> Route:
    """Opens a canary.

    Raises IllegalTransition if a canary, a bake or a break-glass is in force.
    """
    _check_proof(successor, change.proof)
    if successor.canary is not None:
        raise IllegalTransition(
            f"route {successor.name!r} has a canary already: end that rollout first"
        )
    if successor.holdback is not None:
        raise IllegalTransition(
            f"route {successor.name!r} still bakes its last promotion: "
            f"`swapproof canary finish {successor.name} --reason …` ends the bake"
        )
    if successor.break_glass is not None:
        raise IllegalTransition(
            f"break-glass {successor.break_glass} serves route {successor.name!r} without "
            "proof: end it before you open a canary"
        )
    if not 0 < change.weight_bps <= BUCKETS:
        raise IllegalTransition(
            f"a canary's weight is 1 to {BUCKETS} bps, not {change.weight_bps}"
        )
    canary = Canary(
        change.proof.candidate,
        change.weight_bps,
        change.salt,
        change.rollout,
        change.unit_rule,
        handover=change.handover,
    )
    return replace(successor, canary=canary)


def _promote(successor: Route, change: PromoteCanary) -> Route:
    """Makes the canary the incumbent. During a bake, the former incumbent serves the holdback.

    The holdback is the control of the bake. It keeps the canary's salt, so that `choose_arm`
    assigns to it the callers whom the canary reached last.
    """
    proof = change.proof
    _check_proof(successor, proof)
    canary = successor.canary
    if canary is None or canary.target != proof.candidate:
        raise ProofRefused(f"route {successor.name!r}: {proof.candidate} is not its canary")
    holdback = None
    if change.holdback_bps:
        holdback = replace(
            canary,
            target=successor.incumbent,
            weight_bps=change.holdback_bps,
            control=True,
            handover=None,
        )
    return replace(
        successor,
        incumbent=proof.candidate,
        canary=None,
        holdback=holdback,
    )


def _check_proof(route: Route, proof: Passed) -> None:
    """Checks a verdict. Raises ProofRefused if it is for another route, or compares with
    another incumbent.
    """
    if (proof.route, proof.incumbent) != (route.name, route.incumbent):
        raise ProofRefused(
            f"verdict {proof.id} is for route {proof.route!r} against {proof.incumbent}; "
            f"route {route.name!r} has incumbent {route.incumbent}: propose again"
        )


def _require_canary(route: Route, rollout: str) -> Canary:
    """Returns the rollout's canary.

    Raises IllegalTransition if the route has no canary of that rollout.
    """
    if route.canary is None or route.canary.rollout != rollout:
        raise IllegalTransition(f"route {route.name!r} has no canary of rollout {rollout}")
    return route.canary
