"""What a proposal asks for beyond its route's rules. Another person has to approve that."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from harness.control import standing
from harness.control.context import Context
from harness.domain.errors import NotFound
from harness.domain.evaluation import SuitePin
from harness.domain.policy import Policy
from harness.domain.policy_order import stricter_or_equal
from harness.domain.routing import Route
from harness.ports import Transaction


def of_policy(ctx: Context, route: Route, policy: Policy) -> dict[str, Any]:
    """Field to what the route asks for and what is proposed; empty for a policy as strict.

    Raises NotFound when the route's policy is not in the configuration any more.
    """
    return {
        each.field: {"route": _stored(each.route), "proposed": _stored(each.proposed)}
        for each in stricter_or_equal(ctx.policy(route.settings.policy), policy)
    }


def of_suites(tx: Transaction, route: Route, pins: Sequence[SuitePin]) -> dict[str, Any]:
    """Suites that are other than those that a person has accepted for this route.

    Accepted is what the route's settings had when its suites were named, and what the last
    proposal was let in with. The first proposal of a route without either sets the measure.
    """
    found: dict[str, Any] = {}
    for pin in pins:
        accepted = list(_accepted(tx, route, pin.name))
        if accepted and pin.digest not in accepted:
            found[f"suite {pin.name}"] = {
                "route": accepted[0],
                "proposed": pin.digest,
                "changed": _changed(tx, accepted[0], pin),
            }
    return found


def _accepted(tx: Transaction, route: Route, suite: str) -> Iterator[str]:
    """Digests, the last proposal's first."""
    plans = (
        plan
        for proposal in tx.proposals.let_in(route.name)
        for plan in proposal.plans
        if plan.suite == suite
    )
    if (last := next(plans, None)) is not None:
        yield last.suite_digest
    yield from (
        each.digest for each in route.settings.suites if each.suite == suite and each.digest
    )


def _changed(tx: Transaction, accepted: str, now: SuitePin) -> list[str]:
    try:
        return list(standing.differing(tx.suites.get(accepted), now))
    except NotFound:
        return ["its content"]


def words(widened: Mapping[str, Any]) -> list[str]:
    """One line for each, as an approver reads it."""
    return [f"{name}: {_line(name, each)}" for name, each in widened.items()]


def _line(name: str, each: Mapping[str, Any]) -> str:
    if name.startswith("suite "):
        return f"not the one accepted for this route ({'; '.join(each['changed'])})"
    return (
        f"the route's policy says {_plain(each['route'])}, proposed {_plain(each['proposed'])}"
    )


def _plain(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list():
            return ", ".join(map(_plain, value))
        case _:
            return str(value)


def _stored(value: object) -> object:
    """As JSON gives it back."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, tuple):
        return [_stored(each) for each in value]
    return value
