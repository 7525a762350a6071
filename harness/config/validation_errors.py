"""Pydantic's errors become configuration errors with a file, a line and the nearest right key
or word.
Keys that were retired before 0.1.0 become one error that names them and their replacements.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from pydantic import ValidationError

from harness.config.source_locations import Document, KeyPath, dotted_path
from harness.domain.errors import ConfigError, RetiredKeys
from harness.domain.suggestions import did_you_mean, format_fault

_LOG: Final = logging.getLogger(__name__)
# A key by its path in the file; `*` for any name or place in a list. `path=value`: that value.
RETIRED_KEYS: Final[Mapping[str, str]] = {
    "policies.*.canary.carried_share": "evidence of new callers always lasts over the days",
    "policies.*.canary.evidence": "there is one rule of evidence",
    "policies.*.canary.segment_share": "segments are shown at a rollback, and are no evidence",
    "policies.*.canary.session_requests": "a caller's first request is the unit",
    "policies.*.canary.session_s": "a caller's first request is the unit",
    "policies.*.canary.shadow": "`swapgate shadow start` mirrors a route's requests",
    "policies.*.canary.unit=session": "a caller's first request is the unit",
    "policies.*.gate.rule": "the gate has one rule; leave the key out",
    "policies.*.gate.spend": "the first look has all of alpha, all looks together 1.5 times it",
    "archive": "`control.traffic_keep_days` says when old traffic is deleted",
    "audit": "collect the control plane's stdout: it has a line for each audit event",
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
# Keys of older files without effect: they lose their place with a warning, and stop nothing.
IGNORED_KEYS: Final[Mapping[str, str]] = {
    "policies.*.canary.unit": "a caller's first request is the unit; a request without a "
    "caller is a caller of its own",
    "policies.*.gate.infra_pause_s": "`infra_patience_s` says how long a comparison waits",
    "policies.*.gate.infra_retries": "`infra_patience_s` says how long a comparison waits",
}
# A command by its words. Each of its subcommands is retired with it.
RETIRED_COMMANDS: Final[Mapping[str, str]] = {
    "archive": "set `control.traffic_keep_days`, after which old traffic is deleted",
    "audit resend": "use `swapgate audit export`",
    "audit sinks": "collect the control plane's stdout",
    "backup": "use `pg_dump` or SQLite's `.backup` (`swapgate docs open backup`)",
    "bench": "run `make bench` in a checkout",
    "canary bench": "run `python -m benchmarks.canary.run` in a checkout",
    "credential": "use `swapgate provider key`",
    "db downgrade": "restore a backup from before the upgrade",
    "db sign": "use `swapgate db remove-forged`",
    "drift list": "use `swapgate drift history`",
    "drift show": "use `swapgate drift status ROUTE`",
    "eval import": "use `swapgate suite import`",
    "restore": "use `pg_restore`, or put SQLite's file back (`swapgate docs open backup`)",
    "gate bench": "run `python -m benchmarks.gate.run` in a checkout",
    "replay": "use `swapgate gate replay`",
}


# What others call a key.
_OTHER_KEYS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("dashboard", "frontend", "web"), "ui"),
    **dict.fromkeys(("model", "primary"), "incumbent"),
    **dict.fromkeys(("database", "db"), "database_url"),
    "gateway": "router",
    "proxy": "router",
    "base_url": "api_base",
    "type": "kind",
}
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_NO_WORD_OF_A_LIST = ("literal_error", "enum")


def config_error(
    document: Document, error: ValidationError, schema: Mapping[str, object]
) -> ConfigError:
    """Builds the error of the first unknown key, with the nearest right one, or fault."""
    faults = error.errors(include_url=False)
    # Where several shapes were tried, an unknown key says more than "not a string".
    first = next((fault for fault in faults if fault["type"] in _UNKNOWN), faults[0])
    path = tuple(p for p in first["loc"] if not _is_branch(p))
    place, unknown = document.place(path), str(path[-1]) if path else ""
    if first["type"] in _UNKNOWN:
        keys = _siblings(path, schema)
        listed = f"; known here: {', '.join(keys)}" if keys else ""
        hint = did_you_mean(_OTHER_KEYS.get(unknown, unknown), keys, otherwise=listed)
        return ConfigError(f"{place}: unknown key {dotted_path(path)!r}{hint}")
    if first["type"] in _NO_WORD_OF_A_LIST:
        words = re.findall("'([^']*)'", first["ctx"]["expected"])
        listed = f"; known here: {', '.join(words)}"
        hint = did_you_mean(str(first["input"]), words, otherwise=listed)
        return document.error(path, f"unknown word {first['input']!r}{hint}")
    return document.error(path, format_fault(first["msg"]))


def require_no_retired_keys(document: Document) -> None:
    """Checks a document for retired keys. Raises RetiredKeys with the place of each."""
    found = [
        f"{document.place(path)}: {dotted_path(path)!r} is retired: {instead}"
        for path, instead in _matches(document.values, (), RETIRED_KEYS)
    ]
    if found:
        title = "nothing was started, as the configuration has retired keys"
        raise RetiredKeys("\n".join((title, *found)))


def without_ignored_keys(document: Document) -> dict[str, object]:
    """Returns the document's values without the keys that have no effect, and logs each."""
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
    """pydantic adds the tried type to the path of a union, e.g. `TargetEntry`, `str`."""
    return isinstance(part, str) and part in (
        "str",
        "int",
        "float",
        "literal[False]",
        "TargetEntry",
        "FallbackEntry",
        "RouteSuite",
    )


def _siblings(path: KeyPath, schema: Mapping[str, object]) -> list[str]:
    """The keys that may stand where the last part of `path` stands, from the schema."""
    defs: Mapping[str, object] = schema.get("$defs", {})  # type: ignore[assignment]
    node: object = schema
    for part in path[:-1]:
        node = _inside(_resolved(node, defs), part, defs)
    properties = _resolved(node, defs).get("properties", {})
    return list(properties) if isinstance(properties, dict) else []


def _resolved(node: object, defs: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(node, dict):
        return {}
    if "$ref" in node:
        return _resolved(defs[str(node["$ref"]).rsplit("/", 1)[1]], defs)
    for choice in node.get("anyOf", []):
        found = _resolved(choice, defs)
        if found.get("type") in ("object", "array"):
            return found
    return node


def _inside(node: dict[str, object], part: str | int, defs: Mapping[str, object]) -> object:
    properties = node.get("properties")
    if isinstance(part, int):
        return _resolved(node.get("items", {}), defs)
    if isinstance(properties, dict) and part in properties:
        return properties[part]
    return node.get("additionalProperties", {})
