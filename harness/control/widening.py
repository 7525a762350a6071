"""What a proposal asks for beyond its route's rules. Another person has to approve that."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from itertools import islice, pairwise
from operator import itemgetter
from typing import Any

from harness.control import standing
from harness.control.context import Context
from harness.control.route_risk import WINDOW
from harness.domain.access import Actor
from harness.domain.changes import KINDS, Restore
from harness.domain.errors import NotFound
from harness.domain.evaluation import SuitePin
from harness.domain.policy import Policy
from harness.domain.policy_order import stricter_or_equal
from harness.domain.principals import folded
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

    Accepted is the newer of what the route's settings had when its suites were named, and what
    the last proposal was let in with. The first proposal of a route without either sets the
    measure.
    """
    found: dict[str, Any] = {}
    for pin in pins:
        accepted = _accepted(tx, route, pin.name)
        if accepted and pin.digest != accepted:
            found[f"suite {pin.name}"] = {
                "route": accepted,
                "proposed": pin.digest,
                "changed": _changed(tx, accepted, pin),
            }
    return found


def _accepted(tx: Transaction, route: Route, suite: str) -> str:
    """The digest of the newer one; empty where there is none."""
    let_in = (
        (proposal.created_at, plan.suite_digest)
        for proposal in tx.proposals.let_in(route.name)
        for plan in proposal.plans
        if plan.suite == suite
    )
    both = [*islice(let_in, 1), *_named(tx, route.name, suite)]
    return max(both, key=itemgetter(0), default=(None, ""))[1]


def _named(tx: Transaction, route: str, suite: str) -> list[tuple[datetime, str]]:
    """Since when the settings have the suite as they do, and its digest."""
    found: list[tuple[datetime, str]] = []
    for record in tx.routing.history(route):
        suites = record.route.settings.suites
        digest = next((each.digest for each in suites if each.suite == suite), "")
        if not digest or (found and digest != found[0][1]):
            break
        found = [(record.at, digest)]
    return found


def _changed(tx: Transaction, accepted: str, now: SuitePin) -> list[str]:
    try:
        return list(standing.differing(tx.suites.get(accepted), now))
    except NotFound:
        return ["its content"]


def of_incumbent(
    tx: Transaction, route: Route, proposer: Actor, now: datetime
) -> dict[str, Any]:
    """The incumbent, where the proposer brought it back himself in the last 90 days: he chose
    what his candidate is compared with, and that may be a weaker one than served before.
    """
    names = tx.routing.targets()
    for newer, older in pairwise(tx.routing.history(route.name)):
        if newer.route.incumbent == older.route.incumbent:
            continue
        known = tx.principals.named(newer.actor)
        own = folded(newer.actor) == folded(proposer.name) or (
            known is not None and known.id == proposer.principal
        )
        if newer.kind != KINDS[Restore] or newer.at < now - WINDOW or not own:
            return {}
        was, is_ = (names[each.route.incumbent].name for each in (older, newer))
        return {"incumbent": {"route": was, "proposed": is_, "reason": newer.reason}}
    return {}


def words(widened: Mapping[str, Any]) -> list[str]:
    """One line for each, as an approver reads it."""
    return [f"{name}: {_line(name, each)}" for name, each in widened.items()]


def _line(name: str, each: Mapping[str, Any]) -> str:
    if name == "incumbent":
        return (
            f"{each['proposed']}, which the proposer brought back in the place of "
            f"{each['route']} ({each['reason']})"
        )
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
