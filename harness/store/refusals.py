"""Makes the errors that the store raises for names that are unknown, for what is taken, and for
writers that came too late. `harness/store/sql` raises them.
"""

from harness.domain.errors import (
    Conflict,
    InputError,
    NotFound,
    ProofRefused,
    RevisionConflict,
    RouteBusy,
    StaleWrite,
)
from harness.domain.operations.principals import Principal
from harness.domain.routing.route_changes import RestoreIncumbent


def no_such_provider(name: str) -> InputError:
    return InputError(f"there is no provider {name!r}: add it before its key")


def unknown_provider(name: str) -> InputError:
    return InputError(f"there is no provider {name!r} that could have been asked")


def sign_in_is_over(provider: str) -> StaleWrite:
    return StaleWrite(
        f"somebody signed in anew for provider {provider!r}, or out: what the last one gave is "
        "dropped"
    )


def no_such_key(key: str) -> NotFound:
    return NotFound(f"there is no key {key}; `swapgate key list` shows them")


def no_such_session(session: str) -> NotFound:
    return NotFound(
        f"there is no dashboard session {session}: `swapgate person sessions` shows those that "
        "go on"
    )


def principal_taken(new: Principal, stored: Principal) -> Conflict:
    return Conflict(
        f"the name {new.name!r} is that of {stored.name!r} ({stored.id}) already: spelling, "
        "case and spaces make no other person"
    )


def no_such_run(run: str) -> NotFound:
    return NotFound(f"there is no eval run {run}; `swapgate eval list` shows them")


def no_such_switch(id_: str) -> NotFound:
    return NotFound(f"there is no switch {id_}; `swapgate switch list` shows them")


def no_such_shadow(id_: str) -> NotFound:
    return NotFound(f"there is no shadow {id_}; `swapgate shadow list` shows them")


def shadow_is_live(route: str, shadow: str) -> Conflict:
    return Conflict(
        f"route {route!r} has the shadow {shadow} already: `swapgate shadow stop {route}` "
        "ends it"
    )


def no_such_alert(id_: str) -> NotFound:
    return NotFound(f"there is no alert {id_}; `swapgate alert list` shows them")


def not_captured(id_: str) -> NotFound:
    return NotFound(f"there is no captured request {id_}; `swapgate capture list` shows them")


def moved_on(route: str, stored: int, expected: int) -> RevisionConflict:
    return RevisionConflict(
        f"route {route!r} is at version {stored}, not {expected}: somebody else was first; "
        "load it again, then decide"
    )


def stale(what: str, mine: int, stored: int) -> StaleWrite:
    return StaleWrite(
        f"{what} is stored at version {stored}, not {mine}: load it again, then decide"
    )


def has_open_proposal(route: str, proposal: str) -> RouteBusy:
    return RouteBusy(
        f"route {route!r} has the open proposal {proposal}: wait for its end or cancel it with "
        f"`swapgate proposal cancel {proposal}`"
    )


def verdict_used(verdict: str) -> ProofRefused:
    return ProofRefused(
        f"verdict {verdict} was the proof of a rollout already, and that one ended: the same "
        "candidate needs a new verdict, so propose it again"
    )


def has_live_rollout(route: str, rollout: str) -> RouteBusy:
    return RouteBusy(
        f"route {route!r} has the live rollout {rollout}: `swapgate canary abort {route}` "
        "ends it"
    )


def never_served(route: str, target: str) -> ProofRefused:
    return ProofRefused(
        f"{target} never served route {route!r}: `swapgate route history` shows what did; a "
        "new target needs a passed verdict of this route, or a waiver"
    )


def never_incumbent(change: RestoreIncumbent) -> ProofRefused:
    return ProofRefused(
        f"{change.incumbent} was never the incumbent of route {change.route!r}: "
        "`swapgate route history` shows which were; for a new one make a proposal"
    )
