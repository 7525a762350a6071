"""Configuration errors with file, line and nearest known key; retired keys and commands."""

import logging
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from pydantic import ValidationError

from harness.config.source_locations import Document, KeyPath, dotted_path
from harness.frame.errors import ConfigError, RetiredKeys
from harness.frame.suggestions import UNKNOWN_KEY, describe_fault

_LOG: Final = logging.getLogger(__name__)
# By path in the file; `*` is any name or list index. `path=value` matches one value only.
RETIRED_KEYS: Final[Mapping[str, str]] = {
    "policies.*.canary.carried_share": "evidence of new callers now always lasts across days",
    "policies.*.canary.evidence": "there is one rule of evidence",
    "policies.*.canary.segment_share": "a rollback shows segments; they are not evidence",
    "policies.*.canary.session_requests": "a caller's first request is the unit",
    "policies.*.canary.session_s": "a caller's first request is the unit",
    "policies.*.canary.shadow": "`swapgate shadow start` mirrors a route's requests",
    "policies.*.canary.unit=session": "a caller's first request is the unit",
    "policies.*.gate.rule": "the gate has one rule; leave the key out",
    "policies.*.gate.spend": "the first look gets alpha, all looks together 1.5 times alpha",
    "archive": "`control.traffic_keep_days` sets when old traffic is deleted",
    "audit": "collect the control plane's stdout, which has a line for each audit event",
    "agents.tool_servers.*.command": "run the server over HTTP, and give its `url`",
    "agents.tool_servers.*.args": "run the server over HTTP, and give its `url`",
    "agents.tool_servers.*.env": "run the server over HTTP, and give its `url`",
    "agents.busy_wait_s": "a second message gets 409 session_busy: send it again",
    "agents.spawn.max_depth": "sub-tasks spawn no sub-tasks; leave the key out",
    "agents.encrypt": "encrypt the disk or the database",
    "encrypt_content": "encrypt the disk or the database",
    "projects": "give each team an installation of its own",
    "ui.oidc.project_roles": "put the groups in `ui.oidc.roles`",
}
# Keys of older files that have no effect: Swapgate ignores them with a warning.
IGNORED_KEYS: Final[Mapping[str, str]] = {
    "policies.*.canary.unit": "a caller's first request is the unit; each request without a "
    "caller counts as a new caller",
    "policies.*.gate.infra_pause_s": "`infra_patience_s` sets how long a comparison waits",
    "policies.*.gate.infra_retries": "`infra_patience_s` sets how long a comparison waits",
}
# By the command's words; its subcommands are retired, too.
RETIRED_COMMANDS: Final[Mapping[str, str]] = {
    "agent purge-user": "use `swapgate user delete`",
    "archive": "set `control.traffic_keep_days`, after which old traffic is deleted",
    "audit resend": "use `swapgate audit export`",
    "audit sinks": "collect the control plane's stdout",
    "backup": "use `pg_dump` or SQLite's `.backup` (`swapgate docs open backup`)",
    "bench": "run `make bench` in a checkout",
    "canary bench": "run `python -m benchmarks.canary.run` in a checkout",
    "credential": "use `swapgate provider key`",
    "db downgrade": "restore a backup from before the upgrade",
    "db sign": "use `swapgate db remove-forged`",
    "drift list": "use `swapgate drift status`",
    "drift show": "use `swapgate drift status ROUTE`",
    "eval import": "use `swapgate suite import`",
    "restore": "use `pg_restore`, or put SQLite's file back (`swapgate docs open backup`)",
    "gate bench": "run `python -m benchmarks.gate.run` in a checkout",
    "replay": "use `swapgate gate replay`",
}


def config_error(
    document: Document, error: ValidationError, schema: Mapping[str, object]
) -> ConfigError:
    """Builds the error of the first unknown key, with the nearest known key, or first fault."""
    faults = error.errors(include_url=False)
    # If pydantic tried several types, an unknown key explains more than "not a string".
    first = next((fault for fault in faults if fault["type"] in UNKNOWN_KEY), faults[0])
    path = tuple(p for p in first["loc"] if not _is_branch(p))
    is_key = first["type"] in UNKNOWN_KEY
    named = dotted_path(path) if is_key else str(first["input"])
    text = describe_fault(first, path, schema, named=named)
    if is_key:
        return ConfigError(f"{document.place(path)}: {text}")
    return document.error(path, text)


def require_no_retired_keys(document: Document) -> None:
    found = [
        f"{document.place(path)}: {dotted_path(path)!r} is retired: {instead}"
        for path, instead in _matches(document.values, (), RETIRED_KEYS)
    ]
    if found:
        title = "nothing was started, because the configuration has retired keys"
        raise RetiredKeys("\n".join((title, *found)))


def without_ignored_keys(document: Document) -> dict[str, object]:
    """Returns the values without the keys in IGNORED_KEYS, and logs a warning for each."""
    values = deepcopy(document.values)
    for path, reason in _matches(document.values, (), IGNORED_KEYS):
        place, key = document.place(path), dotted_path(path)
        _LOG.warning("%s: %r has no effect: %s", place, key, reason)
        parent: Any = values
        for part in path[:-1]:
            parent = parent[part]
        del parent[path[-1]]
    return values


def _matches(
    value: object, path: KeyPath, patterns: Mapping[str, str]
) -> Iterator[tuple[KeyPath, str]]:
    for pattern, instead in patterns.items():
        names, _, only = pattern.partition("=")
        if _fits(names.split("."), path) and (not only or str(value) == only):
            yield path, instead
            return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _matches(inner, (*path, str(name)), patterns)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _matches(inner, (*path, number), patterns)


def _fits(names: list[str], path: KeyPath) -> bool:
    return len(names) == len(path) and all(
        name in ("*", str(part)) for name, part in zip(names, path, strict=True)
    )


def _is_branch(part: str | int) -> bool:
    """Whether pydantic added this part to the path of a union: the type that it tried."""
    return isinstance(part, str) and part in (
        "str",
        "int",
        "float",
        "literal[False]",
        "TargetEntry",
        "FallbackEntry",
        "RouteSuite",
    )
