"""Errors of the configuration: numbers outside their declared ranges, faulty policies, messages
with file, line and nearest known key, retired keys and commands.

Each number is declared with its range beside its default
(`harness.frame.configuration.setting`). `schema` has the types of keys. The command line names
the successors of retired commands.
"""

import logging
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from harness.frame.configuration.setting import Declaration, format_bound, settings_of
from harness.frame.configuration.source_locations import Document, KeyPath, dotted_path
from harness.frame.errors import ConfigError, RetiredKeys
from harness.frame.formatting import format_bps
from harness.frame.people.audience import MOST_SETS, CallerSet
from harness.frame.suggestions import (
    UNKNOWN_KEY,
    describe_fault,
    find_fault_path,
)
from harness.gate.online.guardrails import RATIO
from harness.gate.policy import PolicyFields, PromotionMode
from harness.gate.suite_plan import ClaimPopulation


def find_range_errors(config: object) -> Iterator[tuple[KeyPath, str]]:
    """Yields path and message for every number outside its declared range, and for every faulty
    policy.

    Args:
        config: the whole file, parsed.
    """
    yield from _find_number_errors(config, ())
    policies: Mapping[str, PolicyFields] = getattr(config, "policies", {})
    for name, policy in policies.items():
        yield from _find_policy_errors(policy, ("policies", name))


def _find_number_errors(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yields the faults of all declared numbers inside a value.

    Args:
        path: of the value.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _find_number_errors(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _find_number_errors(inner, (*path, index))
    elif isinstance(value, BaseModel):
        for key, inner in value:
            yield from _find_number_errors(inner, (*path, key))
    elif is_dataclass(value):
        record: type = type(value)
        declared = settings_of(record)
        for item in fields(value):
            inner = getattr(value, item.name)
            place = (*path, item.name)
            if item.name in declared:
                yield from _check_number(declared[item.name], inner, place)
            else:
                yield from _find_number_errors(inner, place)


def _check_number(
    declared: Declaration, value: object, path: KeyPath
) -> Iterator[tuple[KeyPath, str]]:
    """Yields the fault of one declared number. Ignores numbers with a written form, which
    `read_setting` checks.
    """
    allowed = declared.range
    if allowed is None or declared.written is not None or not isinstance(value, int | float):
        return
    if not allowed.holds(value):
        verb = "be" if allowed.above else "lie in"
        unit = f" {declared.unit}" if declared.unit else ""
        hint = " (1 % is 100)" if declared.name.endswith("_bps") else ""
        yield path, f"is {format_bound(value)}; it must {verb} {allowed.text}{unit}{hint}"


def _find_policy_errors(policy: PolicyFields, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yields the faults of one policy that depend on several of its keys.

    Steps must rise, and `margin_max` must not be below the margin. A guardrail is a ratio or
    off. A claim about the suite's own items needs several answers to an item.
    """
    gate = policy.gate
    canary = policy.canary
    if not canary.steps:
        yield (*path, "canary", "steps"), "a canary needs at least one step"
    for index, (previous_step, step) in enumerate(pairwise(canary.steps), start=1):
        if step.weight_bps <= previous_step.weight_bps:
            place = (*path, "canary", "steps", index)
            yield place, "a step's weight must be above the previous step's weight"
    if gate.margin_max is not None and gate.margin_max < gate.margin:
        text = f"is {format_bound(gate.margin_max)}, less than the policy's own margin"
        yield (*path, "gate", "margin_max"), f"{text}, {format_bound(gate.margin)}"
    if gate.population is ClaimPopulation.THESE and gate.epochs == 1:
        text = (
            "`population: these` needs `epochs` of 2 or more: one answer to an item does not "
            "show how much answers vary"
        )
        yield (*path, "gate"), text
    yield from _find_audience_errors(policy, path)
    for item in fields(canary.guardrails):
        ratio = getattr(canary.guardrails, item.name)
        if ratio is not False and not RATIO.holds(ratio):
            place = (*path, "canary", "guardrails", item.name)
            yield place, f"is {format_bound(ratio)}; a tolerated ratio is {RATIO.text}, or off"


def _find_audience_errors(policy: PolicyFields, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yields the faults of a policy's audiences.

    From step to step, `first` may only grow and `never` may only shrink, so that no caller goes
    back from the candidate to the incumbent. A promotion ends `never`, so a person must approve
    a policy that has it.
    """
    canary = policy.canary
    own = [((*path, "canary", "audience"), canary.audience)]
    steps = enumerate(canary.steps)
    own += [((*path, "canary", "steps", place, "audience"), s.audience) for place, s in steps]
    for place, audience in own:
        for name in ("first", "never"):
            sets: tuple[CallerSet, ...] = getattr(audience, name, ())
            if len(sets) > MOST_SETS:
                yield (*place, name), f"has {len(sets):,} sets; {MOST_SETS} are allowed"
            for index, callers in enumerate(sets):
                if callers.fault:
                    yield (*place, name, index), callers.fault
    for before, after in pairwise(canary.audiences):
        if not (
            set(before.audience.first) <= set(after.audience.first)
            and set(before.audience.never) >= set(after.audience.never)
        ):
            text = (
                f"the audience at {format_bps(after.from_bps)} would take callers out of the "
                "canary again: a later step keeps the sets of `first`, and adds none to `never`"
            )
            yield (*path, "canary", "steps"), text
    if canary.never_measured and policy.promotion is not PromotionMode.APPROVED:
        text = (
            "a promotion gives these callers a model that was never measured with them "
            f"({canary.never_measured}), so a person must approve it: set `promotion: approved`"
        )
        yield (*path, "canary", "audience"), text


def find_ambiguous_guardrails(values: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
    """Yields guardrails that are `on` or 0, which are not clearly a ratio or off."""
    for name, policy in _as_mapping(values.get("policies")).items():
        guardrails = _as_mapping(
            _as_mapping(_as_mapping(policy).get("canary")).get("guardrails")
        )
        for guardrail, ratio in guardrails.items():
            if ratio is True or (ratio == 0 and ratio is not False):
                path = ("policies", name, "canary", "guardrails", guardrail)
                yield path, "give the tolerated ratio, such as 1.25, or off"


def _as_mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


_LOG: Final = logging.getLogger(__name__)

# Texts by path in the file. `*` is any name or list index. `path=value` matches only this
# value.
RETIRED_KEYS: Final[Mapping[str, str]] = {
    "policies.*.canary.carried_share": "Swapproof always uses new callers' evidence across "
    "days",
    "policies.*.canary.evidence": "there is one rule of evidence",
    "policies.*.canary.segment_share": "a rollback shows segments, which are not evidence",
    "policies.*.canary.session_requests": "each caller counts once, by the first request",
    "policies.*.canary.session_s": "each caller counts once, by the first request",
    "policies.*.canary.shadow": "`swapproof shadow start` mirrors a route's requests",
    "policies.*.canary.unit=session": "each caller counts once, by the first request",
    "policies.*.gate.rule": "the gate has one rule; leave the key out",
    "policies.*.gate.spend": "the first look spends alpha, and all looks spend 1.5 times alpha",
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

# Keys of older files that have no effect: Swapproof ignores them with a warning.
IGNORED_KEYS: Final[Mapping[str, str]] = {
    "policies.*.canary.unit": "each caller counts once, by the first request; a request "
    "without a caller counts as a new caller",
    "policies.*.gate.infra_pause_s": "`infra_patience_s` sets how long a comparison waits",
    "policies.*.gate.infra_retries": "`infra_patience_s` sets how long a comparison waits",
}

# Texts by the command's words. Its subcommands are retired, too.
RETIRED_COMMANDS: Final[Mapping[str, str]] = {
    "agent purge-user": "use `swapproof user delete`",
    "archive": "set `control.traffic_keep_days`, after which old traffic is deleted",
    "audit resend": "use `swapproof audit export`",
    "audit sinks": "collect the control plane's stdout",
    "backup": "use `pg_dump` or SQLite's `.backup` (`swapproof docs open backup`)",
    "bench": "run `make bench` in a checkout",
    "canary bench": "run `python -m benchmarks.canary.run` in a checkout",
    "credential": "use `swapproof provider key`",
    "db downgrade": "restore a backup from before the upgrade",
    "db sign": "use `swapproof db remove-forged`",
    "drift list": "use `swapproof drift status`",
    "drift show": "use `swapproof drift status ROUTE`",
    "eval import": "use `swapproof suite import`",
    "restore": "use `pg_restore`, or put SQLite's file back (`swapproof docs open backup`)",
    "gate bench": "run `python -m benchmarks.gate.run` in a checkout",
    "replay": "use `swapproof gate replay`",
}


def config_error(
    document: Document,
    error: ValidationError,
    schema: Mapping[str, object],
) -> ConfigError:
    """Builds the error of the first unknown key, with the nearest known key, or else of the
    first fault.

    Args:
        error: pydantic's.
        schema: the file's JSON Schema, for the known keys.
    """
    faults = error.errors(include_url=False)
    # If pydantic tried several types, it reports a fault for each type. An unknown key helps
    # people more than "not a string".
    first = next(
        (fault for fault in faults if fault["type"] in UNKNOWN_KEY),
        faults[0],
    )
    path = find_fault_path(first, document.values)
    is_key = first["type"] in UNKNOWN_KEY
    shown_value = dotted_path(path) if is_key else str(first["input"])
    text = describe_fault(first, path, schema, named=shown_value)
    if is_key:
        return ConfigError(f"{document.place(path)}: {text}")
    return document.error(path, text)


def require_no_retired_keys(document: Document) -> None:
    """Raises RetiredKeys with all retired keys of a document, each with its place and its
    successor.
    """
    messages = [
        f"{document.place(path)}: {dotted_path(path)!r} is retired: {instead}"
        for path, instead in _find_matches(document.values, (), RETIRED_KEYS)
    ]
    if messages:
        title = "nothing was started, because the configuration has retired keys"
        raise RetiredKeys("\n".join((title, *messages)))


def without_ignored_keys(document: Document) -> dict[str, object]:
    """Returns the values without the keys in IGNORED_KEYS, and logs a warning for each."""
    values = deepcopy(document.values)
    for path, reason in _find_matches(document.values, (), IGNORED_KEYS):
        place = document.place(path)
        key = dotted_path(path)
        _LOG.warning("%s: %r has no effect: %s", place, key, reason)
        parent: Any = values
        for part in path[:-1]:
            parent = parent[part]
        del parent[path[-1]]
    return values


def _find_matches(
    value: object,
    path: KeyPath,
    patterns: Mapping[str, str],
) -> Iterator[tuple[KeyPath, str]]:
    """Yields path and text of each key that a pattern matches.

    Args:
        patterns: as RETIRED_KEYS.
    """
    for pattern, text in patterns.items():
        names, _, required_value = pattern.partition("=")
        if _matches_path(names.split("."), path) and (
            not required_value or str(value) == required_value
        ):
            yield path, text
            return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _find_matches(inner, (*path, str(name)), patterns)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _find_matches(inner, (*path, number), patterns)


def _matches_path(names: list[str], path: KeyPath) -> bool:
    """Tells whether a pattern's names match a path; `*` matches any name or index."""
    return len(names) == len(path) and all(
        name in ("*", str(part)) for name, part in zip(names, path, strict=True)
    )
