"""Switches: a switch forces or avoids a provider or a target, or freezes routes. Pure.

A switch removes targets from a route's plan. If it would remove all, the route keeps its plan.
All avoiding switches apply, but only one forcing switch. Its rank is first its source
(environment, then CLI and REST, then file). Then a route's own switch precedes a switch for all
routes. Then a newer switch precedes an older one. A freeze changes no plan: it stops candidates
(`harness.routing.freeze`).

Switches are stored by `harness.routing.records.interventions`, and people set them through
`harness.routing.control.freezes`. A switch only removes targets, so it can serve no unproven
model.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from harness.frame.errors import InputError
from harness.providers.target import Target

ENVIRONMENT_VARIABLE: Final = "SWAPPROOF_FORCE"
_ITEM: Final = re.compile(
    r"(?:(?P<route>.+?)\s*=\s*)?(?P<kind>(?:avoid:)?(?:provider|target))\s*:(?P<name>.*)"
)
_FORMS: Final = "write provider:NAME, target:ID, avoid:provider:NAME, avoid:target:ID"
_GRAMMAR: Final = f"{_FORMS} or ROUTE=provider:NAME, separated by commas"
_FORCE_FORMS: Final = f"{_FORMS} or freeze"


class SwitchSource(StrEnum):
    """Where a switch was set. The source decides first between forcing switches."""

    ENVIRONMENT = "environment"
    CLI = "cli"
    REST = "rest"
    CONFIG = "config"


_SOURCE_RANK: Final[Mapping[SwitchSource, int]] = {
    SwitchSource.ENVIRONMENT: 2,
    SwitchSource.CLI: 1,
    SwitchSource.REST: 1,
    SwitchSource.CONFIG: 0,
}


class ForceKind(StrEnum):
    """The effect of a switch; the value is the word that people write."""

    PROVIDER = "provider"
    TARGET = "target"
    AVOID_PROVIDER = "avoid:provider"
    AVOID_TARGET = "avoid:target"
    FREEZE = "freeze"  # no candidate advances; routers ignore it


@dataclass(frozen=True, slots=True)
class Force:
    """The effect of a switch and the name of its object; the name of a freeze is empty."""

    kind: ForceKind
    name: str  # the provider's name, or the target's id, name or provider/model

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.name}".removesuffix(":")

    @property
    def avoids(self) -> bool:
        """Whether the switch removes the named provider or target, instead of all others."""
        return self.kind in (
            ForceKind.AVOID_PROVIDER,
            ForceKind.AVOID_TARGET,
        )

    @property
    def freezes(self) -> bool:
        return self.kind is ForceKind.FREEZE

    @property
    def names_target(self) -> bool:
        return self.kind in (ForceKind.TARGET, ForceKind.AVOID_TARGET)

    @property
    def effect(self) -> str:
        return "in force" if self.freezes else "avoided" if self.avoids else "forced"

    @property
    def text(self) -> str:
        return f"{str(self).removeprefix('avoid:')} is {self.effect}"


@dataclass(frozen=True, slots=True)
class KillSwitch:
    """A switch from the database, the environment or the file. It never changes: a SwitchRecord
    tells whether a person lifted it.
    """

    id: str
    route: str | None  # None for all routes
    force: Force
    reason: str
    actor: str
    created_at: datetime
    expires_at: datetime | None  # None: until a person lifts it
    source: SwitchSource
    starts_at: datetime | None = None  # only of a freeze; None for `created_at`

    def covers(self, route: str) -> bool:
        return self.route in (None, route)

    def is_over(self, now: datetime) -> bool:
        """Tells whether the switch has expired. A freeze that has not begun is not over."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class SwitchRecord:
    """A stored switch, with the person who lifted it."""

    switch: KillSwitch
    lifted_at: datetime | None = None  # None until a person lifts the switch, as `lifted_by`
    lifted_by: str | None = None

    def describe_state(self, now: datetime) -> str:
        if self.lifted_at is not None:
            return f"lifted by {self.lifted_by}"
        if self.switch.is_over(now):
            return "expired"
        starts_at = self.switch.starts_at
        return "to come" if starts_at is not None and now < starts_at else "in force"


@dataclass(frozen=True, slots=True)
class ForcedPlan:
    """The part of a plan that a switch leaves."""

    switch: KillSwitch
    kept: tuple[str, ...]  # ids of the remaining targets, in order
    in_effect: bool  # False if the route keeps its plan
    reason: str  # for people
    idle: bool = False  # the plan never had the avoided provider or target


def active_switches(switches: Iterable[KillSwitch], now: datetime) -> tuple[KillSwitch, ...]:
    """Returns the unexpired switches that are no freezes, strongest first."""
    live = [
        switch for switch in switches if not switch.force.freezes and not switch.is_over(now)
    ]
    return tuple(sorted(live, key=_strength, reverse=True))


def ruling_switch(switches: Iterable[KillSwitch], route: str) -> KillSwitch | None:
    """Returns the switch that decides for the route.

    Args:
        switches: those in force.
    """
    covering = [switch for switch in switches if switch.covers(route)]
    return max(covering, key=_strength, default=None)


def decide_plan(
    switches: Iterable[KillSwitch],
    route: str,
    plan: Sequence[Target],
) -> ForcedPlan | None:
    """Applies all switches to a route's plan; None without a switch for the route."""
    covering = sorted(
        (switch for switch in switches if switch.covers(route)),
        key=_strength,
        reverse=True,
    )
    ruling = next((switch for switch in covering if not switch.force.avoids), None)
    avoiding = [switch for switch in covering if switch.force.avoids]
    decision = None
    remaining = tuple(plan)
    for switch in (*avoiding, *([ruling] if ruling else [])):
        step = force_plan(switch, remaining)
        remaining = tuple(target for target in remaining if target.id in step.kept)
        if decision is None or decision.idle or (step.in_effect and not decision.in_effect):
            decision = step
        elif step.in_effect or not switch.force.avoids:
            decision = ForcedPlan(
                step.switch if step.in_effect else decision.switch,
                step.kept,
                in_effect=decision.in_effect or step.in_effect,
                reason=f"{decision.reason}; {step.reason}",
            )
    return decision


def force_plan(switch: KillSwitch, plan: Sequence[Target]) -> ForcedPlan:
    """Applies one switch to a plan. If no target would remain, the whole plan stays.

    The router, previews and the four-eyes check all call this function, so they agree.

    Args:
        plan: targets in order.
    """
    force = switch.force
    named_ids = _named_ids(force, plan)
    kept = tuple(target.id for target in plan if (target.id in named_ids) != force.avoids)
    all_ids = tuple(target.id for target in plan)
    scope = "for all routes" if switch.route is None else "for this route"
    kind = "target" if force.names_target else "provider"
    text = f"{kind} {force.name} {scope} (switch {switch.id}) is {force.effect}"
    if kept and not (force.avoids and kept == all_ids):
        return ForcedPlan(
            switch,
            kept,
            in_effect=True,
            reason=text,
        )
    if not force.avoids:
        reason = "no such target has evidence for this route, or the route may not use it"
    elif kept:
        reason = "this route does not use it"
    else:
        reason = "this route may use no other target"
    reason = f"{text}, but {reason}: the route keeps its plan"
    return ForcedPlan(
        switch,
        all_ids,
        in_effect=False,
        reason=reason,
        idle=force.avoids and bool(kept),
    )


def parse_environment_switches(text: str, now: datetime) -> tuple[KillSwitch, ...]:
    """Parses SWAPPROOF_FORCE. Raises InputError with the invalid item."""
    items = [part.strip() for part in text.split(",")]
    if items == [""]:
        return ()
    return _permanent_switches(items, now, SwitchSource.ENVIRONMENT, place=ENVIRONMENT_VARIABLE)


def parse_file_switches(items: Sequence[str], now: datetime) -> tuple[KillSwitch, ...]:
    """Parses the items under `switches:` in the configuration file."""
    return _permanent_switches(
        [item.strip() for item in items],
        now,
        SwitchSource.CONFIG,
        place="switches",
    )


def parse_force(text: str) -> Force:
    """Parses `provider:NAME` or `target:ID`, optionally after `avoid:`, or `freeze`. Raises
    InputError.
    """
    if text.strip() == ForceKind.FREEZE:
        return Force(ForceKind.FREEZE, "")
    route, force = _parse_item(
        text.strip(),
        repr(text.strip()),
        _FORCE_FORMS,
    )
    if route is not None:
        raise InputError(f"{text.strip()!r} names a route: give the route separately")
    return force


def _permanent_switches(
    items: Sequence[str],
    now: datetime,
    source: SwitchSource,
    *,
    place: str,
) -> tuple[KillSwitch, ...]:
    """Builds the switches of an environment variable or a file. They never expire.

    Args:
        place: for messages.

    Raises InputError for an invalid item, and for a second forcing switch of the same route.
    """
    switches: dict[tuple[str | None, Force | None], KillSwitch] = {}
    for number, item in enumerate(items, 1):
        place_of_item = f"{place}: item {number} ({item!r})"
        route, force = _parse_item(item, place_of_item)
        key = (route, force if force.avoids else None)
        if key in switches:
            scope = "all routes" if route is None else f"route {route!r}"
            raise InputError(
                f"{place_of_item} forces {scope} for a second time; the first item is "
                f"{switches[key].force}: keep one of them"
            )
        switches[key] = KillSwitch(
            id=f"{source.value}-{number}",
            route=route,
            force=force,
            reason=f"set in {place}",
            actor=source.value,
            created_at=now,
            expires_at=None,
            source=source,
        )
    return tuple(switches.values())


def _parse_item(
    item: str,
    place: str,
    grammar: str = _GRAMMAR,
) -> tuple[str | None, Force]:
    """Parses an item to (route, force); the route is None for all routes. Raises InputError."""
    match = _ITEM.fullmatch(item)
    if match is None:
        raise InputError(f"{place} is not a switch; {grammar}")
    name = match["name"].strip()
    if not name:
        raise InputError(f"{place} names no {match['kind']}; {grammar}")
    return match["route"], Force(ForceKind(match["kind"]), name)


def _strength(switch: KillSwitch) -> tuple[int, bool, datetime, str]:
    """Returns the sort key of switches: a greater key decides."""
    return (
        _SOURCE_RANK[switch.source],
        switch.route is not None,
        switch.created_at,
        switch.id,
    )


def _named_ids(force: Force, plan: Sequence[Target]) -> frozenset[str]:
    """Returns the ids of the targets that a switch names, by id, name or provider/model.

    Without an exact match, provider/model names all targets of the model: the full name of a
    target with parameters or a patch ends in `#` and a short id, which a person does not know
    in an emergency.
    """
    if not force.names_target:
        return frozenset(target.id for target in plan if target.provider == force.name)
    exact = frozenset(target.id for target in plan if force.name in (target.id, target.name))
    return exact or frozenset(
        target.id for target in plan if force.name == f"{target.provider}/{target.model}"
    )
