"""A Portkey configuration (`config.json`) becomes Swapgate's: one route, whose targets are its
chain; each named target of a conditional strategy is a route of its own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from harness.domain.adoption.config_builder import ConfigDraft, ProviderSource, TargetDraft
from harness.domain.adoption.conversion import (
    ConfigPath,
    Conversion,
    ConversionReport,
    SourceConfig,
    as_number,
    as_text,
    may_be_secret,
    named_variables,
)
from harness.domain.adoption.portkey_routes import PortkeyTarget, add_routes
from harness.domain.adoption.portkey_settings import (
    INHERITED,
    REASONS,
    ROUTE_SETTINGS,
    STRATEGY_REASONS,
    plain_key,
)
from harness.domain.adoption.provider_names import (
    PORTKEY_PROVIDERS,
    azure_base,
    bedrock_base,
    vertex_base,
)
from harness.domain.errors import InputError
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.suggestions import did_you_mean

_DEPTH: Final = 16
_SHARE: Final = "(share)"  # of the traffic that comes to a group; no key of a file
_MODES: Final = ("single", "fallback", "loadbalance", "conditional")


@dataclass(frozen=True)
class _Reading:
    """What is at hand while a configuration is read."""

    source: SourceConfig
    draft: ConfigDraft
    report: ConversionReport
    targets: list[PortkeyTarget] = field(default_factory=list)


def convert_portkey(source: SourceConfig) -> Conversion:
    """Converts a configuration, and says what became of each of its keys."""
    report = ConversionReport(source)
    reading = _Reading(source, ConfigDraft(named_variables(source.values)), report)
    _read_node((), source.values, {}, reading)
    add_routes(source, reading.targets, reading.draft, report)
    return Conversion(reading.draft.config(), report.notes(), reading.draft.variables)


def _read_node(
    path: ConfigPath,
    node: Mapping[str, object],
    inherited: Mapping[str, object],
    reading: _Reading,
) -> None:
    """A target, or a group of targets."""
    own = {plain_key(key): value for key, value in node.items()}
    given = {**inherited, **own}
    patches = [scope.get("override_params") for scope in (inherited, own)]
    merged: dict[str, object] = {}
    for patch in patches:
        merged |= patch if isinstance(patch, Mapping) else {}
    given["override_params"] = merged
    _note_settings(path, node, reading)
    targets = own.get("targets", own.get("options"))
    if targets is None:
        if own.keys() - ROUTE_SETTINGS - {"strategy", "override_params"} or path:
            _read_leaf(path, given, reading)
        return
    _note_strategy(path, own, reading.report)
    if not isinstance(targets, list) or len(path) > _DEPTH:
        reading.report.leave((*path, "targets"), "is not a list of targets")
        return
    key = next(k for k in node if plain_key(k) in {"targets", "options"})
    passed = {name: value for name, value in given.items() if name in INHERITED}
    _note_inherited(path, node, reading.report)
    share = _weight(given)
    before = len(reading.targets)
    for index, target in enumerate(targets):
        below = (*path, key, index)
        if isinstance(target, Mapping):
            _read_node(below, target, {**passed, _SHARE: share}, reading)
        else:
            reading.report.leave(below, "is not a target")
    if _mode(own) == "loadbalance":
        reading.targets[before:] = sorted(
            reading.targets[before:], key=lambda target: -target.weight
        )


def _mode(own: Mapping[str, object]) -> object:
    strategy = own.get("strategy")
    return strategy.get("mode") if isinstance(strategy, Mapping) else own.get("mode")


def _read_leaf(path: ConfigPath, given: Mapping[str, object], reading: _Reading) -> None:
    try:
        target = _read_target(path, given, reading)
    except InputError as error:
        reading.report.leave(path, f"{error}")
        return
    # A target in a group is chosen by the name of the group.
    outermost = reading.source.mapping(path[:2]) if path else {}
    name = outermost.get("name")
    reading.targets.append(
        PortkeyTarget(path, name if isinstance(name, str) else "", _weight(given), target)
    )


def _weight(given: Mapping[str, object]) -> float:
    """The share of the traffic that it has there, that of the groups around it included."""
    try:
        own = as_number(given.get("weight", 1))
    except InputError:
        own = 1.0
    share = given.get(_SHARE, 1.0)
    return own * share if isinstance(share, float | int) else own


def _note_inherited(
    path: ConfigPath, node: Mapping[str, object], report: ConversionReport
) -> None:
    """What a group of targets passes on to them."""
    for key, value in node.items():
        plain = plain_key(key)
        if plain == "override_params" and isinstance(value, Mapping):
            for name, part in value.items():
                where: ConfigPath = (*path, key, name)
                if may_be_secret(name, part):
                    report.leave(where, "it may be a secret, which is never copied")
                else:
                    report.take(where, "each target of the group")
        elif plain == "api_key":
            report.change(
                (*path, key),
                "the file has a key in clear, which is not copied: its targets name variables",
            )
        elif plain in INHERITED and plain != "override_params":
            report.take((*path, key), "each target of the group")


def _read_target(
    path: ConfigPath, given: Mapping[str, object], reading: _Reading
) -> TargetDraft:
    name, model, guessed = _provider_and_model(given)
    known = PORTKEY_PROVIDERS.get(name)
    if known is None:
        hint = did_you_mean(name, PORTKEY_PROVIDERS)
        raise InputError(f"Swapgate has no provider {name!r}{hint}")
    if not model:
        raise InputError(
            "names no model, and a target here is one model: add `override_params.model`"
        )
    kind, base = known.kind, _api_base(known.kind, given) or known.api_base
    if base and PROVIDER_KINDS[kind].api_base.rstrip("/") == base.rstrip("/"):
        base = ""
    elif base and kind == "openai":
        kind = "custom"
    key = given.get("api_key")
    provider = reading.draft.add_provider(
        ProviderSource(
            name,
            kind,
            base,
            key="" if key is None else as_text(key),
            usual_key_env=known.key_env,
        )
    )
    _note_provider(path, provider, guessed, reading)
    patch = _read_patch(path, given, reading)
    return TargetDraft(provider, model, patch=patch)


def _provider_and_model(given: Mapping[str, object]) -> tuple[str, str, bool]:
    """Portkey's name of the provider, the model, and whether the name was guessed from that of
    a stored key. Raises InputError.
    """
    overrides = given.get("override_params")
    model = overrides.get("model", "") if isinstance(overrides, Mapping) else ""
    model = as_text(model) if model else ""
    if not model:
        deployment = given.get("deployment_id") or given.get("azure_deployment_name")
        model = as_text(deployment) if deployment else ""
    name = given.get("provider")
    slug = ""
    if model.startswith("@") and "/" in model:
        slug, _, model = model[1:].partition("/")
    elif isinstance(name, str) and name and not name.startswith("@"):
        return name, model, False
    elif isinstance(name, str) and name:
        slug, _, rest = name[1:].partition("/")
        model = model or rest
    elif given.get("virtual_key"):
        slug = as_text(given["virtual_key"])
    if not slug:
        raise InputError("names no provider")
    guesses = [
        known for known in PORTKEY_PROVIDERS if re.match(rf"{known}(?![a-z])", slug.lower())
    ]
    if not guesses:
        raise InputError(
            f"its key {slug!r} is stored at Portkey, and its name does not say whose it is: "
            "put `provider` and the model into the file"
        )
    return max(guesses, key=len), model, True


def _api_base(kind: str, given: Mapping[str, object]) -> str:
    if host := given.get("custom_host"):
        return as_text(host)
    if kind == "azure_openai":
        resource = given.get("resource_name") or given.get("azure_resource_name")
        if not resource:
            raise InputError("needs `azure_resource_name`, or `custom_host`")
        return azure_base(f"https://{as_text(resource)}.openai.azure.com")
    if kind == "bedrock":
        if not given.get("aws_region"):
            raise InputError("needs `aws_region`: Bedrock is called in a region")
        return bedrock_base(as_text(given["aws_region"]))
    if kind == "vertex":
        project, region = given.get("vertex_project_id"), given.get("vertex_region")
        if not (project and region):
            raise InputError("needs `vertex_project_id` and `vertex_region`")
        return vertex_base(as_text(project), as_text(region))
    return ""


def _note_provider(
    path: ConfigPath,
    provider: str,
    guessed: bool,  # noqa: FBT001 - one fact of several
    reading: _Reading,
) -> None:
    report, variable = reading.report, reading.draft.provider_entry(provider).get("api_key_env")
    node = reading.source.mapping(path)
    where = f"providers.{provider}" + (f", with its key in {variable}" if variable else "")
    for key in node:
        plain = plain_key(key)
        if plain in {"provider", "virtual_key"} and guessed:
            report.change(
                (*path, key),
                f"{where}: a guess from the name, for the key is stored at Portkey. Check it",
            )
        elif plain in _ADDRESS:
            report.take((*path, key), where)
        elif plain == "api_key":
            report.change(
                (*path, key),
                f"the file has a key in clear, which is not copied: set {variable} to it, or "
                "to a new one",
            )


_ADDRESS: Final = frozenset(
    {
        *("provider", "virtual_key", "custom_host", "resource_name", "azure_resource_name"),
        *("deployment_id", "azure_deployment_name", "aws_region", "vertex_project_id"),
        "vertex_region",
    }
)


def _read_patch(
    path: ConfigPath, given: Mapping[str, object], reading: _Reading
) -> dict[str, object]:
    """What overrides the client's parameters there is a patch of the request here."""
    fields = given["override_params"]
    node = reading.source.mapping(path)
    key = next((k for k in node if plain_key(k) == "override_params"), "override_params")
    taken: dict[str, object] = {}
    for name, value in fields.items() if isinstance(fields, Mapping) else ():
        where: ConfigPath = (*path, key, name)
        if name == "model":
            reading.report.take(where, "the target's model")
        elif may_be_secret(name, value):
            reading.report.leave(where, "it may be a secret, which is never copied")
        else:
            taken[name] = value
            reading.report.take(where, f"the target's request_patch.parameters.{name}")
    return taken


def _note_strategy(
    path: ConfigPath, own: Mapping[str, object], report: ConversionReport
) -> None:
    strategy = own.get("strategy")
    mode = _mode(own)
    where: ConfigPath = (
        (*path, "strategy") if isinstance(strategy, Mapping) else (*path, "mode")
    )
    if isinstance(strategy, Mapping):
        for key in strategy:
            if reason := STRATEGY_REASONS.get(plain_key(key)):
                report.leave((*where, key), reason)
            elif path and plain_key(key) in {"conditions", "default"}:
                report.leave((*where, key), "only the outermost strategy may have conditions")
        where = (*where, "mode")
    if mode is None:
        return
    if mode not in _MODES:
        report.leave(where, "Swapgate knows no such strategy: the targets are taken in order")
    elif mode == "loadbalance":
        report.change(
            where,
            "a route spreads no traffic: its heaviest target is the incumbent, the others are "
            "fallbacks",
        )
    elif mode == "conditional" and path:
        report.change(where, "the targets are taken in order: this is a group in a group")
    elif mode == "conditional":
        report.change(where, "each named target is a route of its own, which clients may name")
    else:
        report.take(where, "the route's targets, in their order")


def _note_settings(path: ConfigPath, node: Mapping[str, object], reading: _Reading) -> None:
    for key, value in node.items():
        plain, where = plain_key(key), (*path, key)
        if reason := REASONS.get(plain):
            reading.report.leave(where, reason)
        elif plain == "weight":
            reading.report.change(where, "the order of the targets; traffic is not spread")
        elif plain == "name":
            reading.report.take(where, "the route's name, or the target's place")
        elif plain == "retry" and isinstance(value, Mapping):
            _convert_retry(where, value, reading, outermost=not path)
        elif plain == "request_timeout" and not path:
            reading.report.change(where, "the route's total_timeout_s, with all its attempts")
        elif plain == "request_timeout":
            reading.report.leave(where, "time limits are a route's or a model's, no target's")


def _convert_retry(
    path: ConfigPath, retry: Mapping[str, object], reading: _Reading, *, outermost: bool
) -> None:
    for key, value in retry.items():
        where = (*path, key)
        if plain_key(key) != "attempts" or not outermost:
            reading.report.leave(where, "Swapgate retries by kind of failure, in all routes")
            continue
        try:
            tries = max(1, int(as_number(value)) + 1)
        except InputError as error:
            reading.report.leave(where, f"{error}")
            continue
        reading.draft.router["retry"] = {
            "tries_per_target": tries,
            "attempts": max(6, tries),
        }
        reading.report.change(where, f"router.retry: {tries} tries of each target")
