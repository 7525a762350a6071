"""Says which commands a project's management key opens, and which parameter names what each is
about. The scopes are those of the REST API.

A command that stands in neither table is the whole installation's: a project's key does not
open it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from harness.control.context import Context
from harness.control.operations.project_scope import (
    ProjectScope,
    installation_alone,
    own_break_glass,
    own_capture,
    own_captures,
    own_freeze,
    own_key,
    own_link,
    own_list,
    own_new_key,
    own_new_route,
    own_new_run,
    own_proposal,
    own_route,
    own_route_or_list,
    own_run,
    own_switch,
    shared,
)


@dataclass(frozen=True)
class CommandScope:
    """Joins a scope and a command. parameter: of the command, whose value the scope looks up as
    `word`. others: parameters by the words of what else it looks up.
    """

    scope: ProjectScope
    word: str = ""
    parameter: str = ""
    others: Mapping[str, str] = field(default_factory=dict)

    def check(self, ctx: Context, given: Mapping[str, Any]) -> None:
        """Checks the command's parameters. Raises NotFound, NotAllowed, InputError."""
        parameters = {self.word: self.parameter, **self.others} if self.word else {}
        self.scope(ctx, {word: given[name] for word, name in parameters.items()})


_CLOSED: Final = CommandScope(installation_alone)
_LIST: Final = CommandScope(own_list)
_SHARED: Final = CommandScope(shared)
_ROUTE: Final = CommandScope(own_route, "route", "route")
_NAMED_ROUTE: Final = CommandScope(own_route, "route", "name")
_PROPOSAL: Final = CommandScope(own_proposal, "proposal", "proposal_id")
_SWITCH: Final = CommandScope(own_switch, "switch", "switch_id")
_FREEZE: Final = CommandScope(own_freeze, "freeze", "freeze_id")
_GLASS: Final = CommandScope(own_break_glass, "glass", "id_")
_RUN: Final = CommandScope(own_run, "run", "run")
_KEY: Final = CommandScope(own_key, "key", "key_id")

PROJECT_SCOPES: Final[Mapping[str, CommandScope]] = {
    "route list": _LIST,
    "route create": CommandScope(own_new_route, "name", "name"),
    "route measured": CommandScope(own_route_or_list, "route", "name"),
    "route failovers": _LIST,
    "route freezes": _LIST,
    "route unfreeze": _FREEZE,
    "route break-glass list": _LIST,
    "route break-glass propose": _NAMED_ROUTE,
    "route break-glass confirm": _GLASS,
    "route break-glass end": _GLASS,
    **{
        f"route {verb}": _NAMED_ROUTE
        for verb in ("show", "history", "diff", "rollback", "settings", "freeze", "traffic")
    },
    **{f"route fallback {verb}": _ROUTE for verb in ("list", "add", "remove", "mark", "order")},
    "proposal list": _LIST,
    "proposal create": _ROUTE,
    **{
        f"proposal {verb}": _PROPOSAL
        for verb in ("show", "report", "approve", "reject", "cancel")
    },
    "canary status": CommandScope(own_route_or_list, "route", "route"),
    **{
        f"canary {verb}": _ROUTE
        for verb in (
            *("explain", "plan", "pause", "resume", "advance", "promote", "abort", "finish"),
        )
    },
    "shadow list": _LIST,
    "shadow status": CommandScope(own_route_or_list, "route", "route"),
    "shadow start": _ROUTE,
    "shadow stop": _ROUTE,
    "switch list": _LIST,
    "switch throw": _ROUTE,
    "switch lift": _SWITCH,
    "key list": _LIST,
    "key create": CommandScope(own_new_key, "project", "project"),
    "key limits": _KEY,
    "key opt-outs": _KEY,
    "key revoke": _KEY,
    "key sign-in-link": CommandScope(own_link, "key", "key_id"),
    "spending": _LIST,
    "alert list": _LIST,
    "audit tail": _LIST,
    "audit export": _LIST,
    "suite list": _LIST,
    "capture list": _LIST,
    "capture show": CommandScope(own_capture, "capture", "capture_id"),
    "capture export": CommandScope(own_route_or_list, "route", "route"),
    "capture purge": CommandScope(own_captures, "route", "route", {"capture": "capture_id"}),
    "eval list": _LIST,
    "eval run": CommandScope(own_new_run, "suite", "suite"),
    "eval show": _RUN,
    "eval cancel": _RUN,
    "drift status": CommandScope(own_route_or_list, "route", "route"),
    "drift history": _LIST,
    "drift run": _ROUTE,
    "drift accept": _ROUTE,
    "model list": _SHARED,
    "model match": _SHARED,
}

# These set up or repair the machine's own installation, or need none: they have to work where
# the database does not, and so look at a key when they act with it, not before.
OF_THE_MACHINE: Final = frozenset(
    {
        *("init", "serve", "doctor", "demo", "sim", "mcp", "worker", "db", "config"),
        *("eval-worker", "eval-worker-template", "router-worker", "restore"),
        *("completion", "docs", "status"),
        *("gate decide", "canary decide"),
    }
)


def scope_of_command(path: str) -> CommandScope:
    """Finds a command's scope. path: its words, as of `swapgate route show`: `route show`."""
    return PROJECT_SCOPES.get(path, _CLOSED)


def is_of_the_machine(path: str) -> bool:
    return path in OF_THE_MACHINE or path.partition(" ")[0] in OF_THE_MACHINE
