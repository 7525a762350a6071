"""Checks whose the thing is that a request names, whether it came by REST, MCP or the command
line. What another project has is answered as what nobody has.

Each endpoint, tool and command names its scope. One that names none is the whole
installation's: a project's management key does not open it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from harness.control.context import Context
from harness.domain.errors import InputError, NotAllowed, NotFound, SignatureInvalid
from harness.domain.operations.projects import MARK, project_of
from harness.ports import Transaction

# Of a context with a project, and what a request names, by the words of the REST API: those of
# the path, and the body; raises NotFound, NotAllowed, InputError.
_NOUNS: Final = {"glass": "break-glass"}  # what a path's name is called in words
ProjectScope = Callable[[Context, Mapping[str, Any]], None]


def installation_alone(_: Context, __: Mapping[str, Any]) -> None:
    raise NotAllowed("this is about the whole installation: use a key of the default project")


def shared(_: Context, __: Mapping[str, Any]) -> None:
    """What the projects have in common: models, policies."""


def own_list(_: Context, __: Mapping[str, Any]) -> None:
    """The list itself has the project's rows alone."""


def _named(given: Mapping[str, Any], what: str) -> Any:
    """What the path names, else the query, else the body."""
    if what in given:
        return given[what]
    return getattr(given["piece"] if "piece" in given else given["body"], what)


def own_route(ctx: Context, given: Mapping[str, Any]) -> None:
    """Checks the route in the path, else in the body; without one it is about all routes."""
    name = _named(given, "route")
    if name is None:
        raise NotAllowed("name a route of your project: without one, it is about all routes")
    if project_of(name) != ctx.project:
        raise NotFound(f"there is no route {name!r}")


def own_route_or_list(ctx: Context, given: Mapping[str, Any]) -> None:
    """Checks the route, where one is named; else the list itself has the project's alone."""
    if _named(given, "route") is not None:
        own_route(ctx, given)


def own_new_route(ctx: Context, given: Mapping[str, Any]) -> None:
    if project_of(_named(given, "name")) != ctx.project:
        raise InputError(f"a route of your project is named {ctx.project}{MARK}NAME")


def own_new_key(ctx: Context, given: Mapping[str, Any]) -> None:
    if _named(given, "project") not in (None, ctx.project):
        raise NotAllowed(f"your key makes keys of the project {ctx.project!r} alone")


def own_link(_: Context, given: Mapping[str, Any]) -> None:
    if _named(given, "key") is not None:
        raise NotAllowed("your key prints a link for its own owner alone: leave the id out")


def own_new_run(ctx: Context, given: Mapping[str, Any]) -> None:
    name = _named(given, "suite")
    if project_of(name) != ctx.project:
        raise NotFound(
            f"no suite {name!r} of your project: a run by hand is of one's own suite"
        )


def own_captures(ctx: Context, given: Mapping[str, Any]) -> None:
    """Checks what selects captured requests: one of the project's, its route, or both; without
    either they may be everybody's.
    """
    capture, route = _named(given, "capture"), _named(given, "route")
    if capture is None and route is None:
        raise NotAllowed("name a route of your project, or a captured request of it")
    if capture is not None:
        own_capture(ctx, {"capture": capture})
    if route is not None:
        own_route(ctx, {"route": route})


def _scope_by_id(
    what: str, load_project: Callable[[Transaction, str], str | None]
) -> ProjectScope:
    """Checks the project of what the path names by its id."""

    def check(ctx: Context, given: Mapping[str, Any]) -> None:
        id_ = given[what]
        try:
            with ctx.store.read() as tx:
                project = load_project(tx, id_)
        except (NotFound, SignatureInvalid):
            project = None
        if project != ctx.project:
            raise NotFound(f"there is no {_NOUNS.get(what, what)} {id_!r}")

    return check


def _project_of_key(tx: Transaction, id_: str) -> str | None:
    key = tx.keys.get(id_)
    # A management key is its owner's and the operators' to change.
    return key.project if key is not None and key.role is None else None


own_proposal: Final = _scope_by_id(
    "proposal", lambda tx, id_: project_of(tx.proposals.get(id_).route)
)
own_capture: Final = _scope_by_id(
    "capture", lambda tx, id_: project_of(tx.captures.get(id_).route)
)
own_verdict: Final = _scope_by_id(
    "verdict", lambda tx, id_: project_of(tx.verdicts.get(id_).route)
)
own_switch: Final = _scope_by_id(
    "switch", lambda tx, id_: project_of(tx.switches.get(id_).switch.route or "")
)
own_freeze: Final = _scope_by_id(
    "freeze", lambda tx, id_: project_of(tx.freezes.get(id_).freeze.route or "")
)
own_break_glass: Final = _scope_by_id(
    "glass", lambda tx, id_: project_of(tx.break_glasses.get(id_).route)
)
own_run: Final = _scope_by_id("run", lambda tx, id_: project_of(tx.runs.get(id_).suite))
own_key: Final = _scope_by_id("key", _project_of_key)
