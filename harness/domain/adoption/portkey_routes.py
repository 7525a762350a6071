"""The targets of a Portkey configuration become routes: one of all of them or, where conditions
choose among them, one for each that they name.

Here a route is chosen by `model`, by the header `x-swapgate-task` or by the endpoint for
embeddings. A condition that asks for one of these is taken over; any other gets a reason.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.domain.adoption.config_builder import ConfigDraft, TargetDraft
from harness.domain.adoption.conversion import (
    ConfigPath,
    ConversionReport,
    SourceConfig,
    as_number,
)
from harness.domain.errors import InputError
from harness.domain.routing.route_changes import check_route_name

_EMBEDDINGS: Final = "/v1/embeddings"
_OTHERS: Final = "clients that it means name the route {route} themselves"


@dataclass(frozen=True, slots=True)
class PortkeyTarget:
    """One target of the tree, with what it inherits."""

    path: ConfigPath
    name: str  # of the target or, where it is in a named group, of that
    weight: float
    target: TargetDraft


@dataclass(frozen=True, slots=True)
class RequestMatch:
    """Says which requests a condition means, by what a route can be chosen by."""

    models: tuple[str, ...] = ()  # which clients send as `model`
    task: str = ""  # what they send in the header instead of metadata
    embeddings: bool = False


def add_routes(
    source: SourceConfig,
    targets: Sequence[PortkeyTarget],
    draft: ConfigDraft,
    report: ConversionReport,
) -> None:
    """Adds the route of the whole configuration, and those of a conditional strategy."""
    if not targets:
        return
    name = _route_name(source)
    strategy = source.values.get("strategy")
    values = strategy if isinstance(strategy, Mapping) else source.values
    if values.get("mode") == "conditional" and isinstance(strategy, Mapping):
        _add_conditional_routes(name, strategy, targets, draft, report)
    else:
        draft.add_route(name, [target.target for target in targets])
    _convert_timeout(source, draft, report)


def _add_conditional_routes(
    name: str,
    strategy: Mapping[str, object],
    targets: Sequence[PortkeyTarget],
    draft: ConfigDraft,
    report: ConversionReport,
) -> None:
    """Each named target is a route that clients may name, and conditions may choose it too."""
    chains: dict[str, list[TargetDraft]] = {}
    for target in targets:
        chains.setdefault(target.name, []).append(target.target)
    default = strategy.get("default")
    first = default if isinstance(default, str) and default in chains else targets[0].name
    for target_name in sorted(filter(None, chains), key=lambda known: known != first):
        own = _plain_name(f"{name}-{target_name}")
        if own and own not in draft.routes:
            draft.add_route(own, chains[target_name])
    draft.add_route(name, chains[first])
    if default == first:
        report.take(("strategy", "default"), f"route {name}: its own targets")
    elif "default" in strategy:
        report.leave(("strategy", "default"), "names no target that was taken over")
    conditions = strategy.get("conditions")
    if not isinstance(conditions, list):
        return  # what it is instead is reported as unknown
    for index, condition in enumerate(conditions):
        where: ConfigPath = ("strategy", "conditions", index)
        try:
            text = _convert_condition(name, condition, chains, draft)
            report.change(where, text)
        except InputError as error:
            report.leave(where, f"{error}")


def _convert_condition(
    name: str,
    condition: object,
    chains: Mapping[str, Sequence[TargetDraft]],
    draft: ConfigDraft,
) -> str:
    """Adds what chooses the condition's target, and says what it is. Raises InputError for a
    condition that no route can be chosen by.
    """
    query = condition.get("query") if isinstance(condition, Mapping) else None
    target = condition.get("then") if isinstance(condition, Mapping) else None
    if not isinstance(query, Mapping) or not isinstance(target, str) or target not in chains:
        raise InputError("names no target that was taken over, or has no query")
    own = _plain_name(f"{name}-{target}")
    match = read_query(query, own)
    if match.embeddings:
        if "overrides" in draft.route_settings(name):
            raise InputError("an earlier condition takes these requests")
        draft.set_route(name, "overrides", {"embedding": own})
        return f"routes.{name}.overrides.embedding: {own}"
    if match.task:
        if "task" in draft.route_settings(own):
            raise InputError(
                "a route has one task, and an earlier condition has it: "
                + _OTHERS.format(route=own)
            )
        draft.set_route(own, "task", match.task)
        return (
            f"route {own}: clients send `x-swapgate-task: {match.task}` instead of the "
            "metadata; it comes before `model`"
        )
    for model in match.models:
        check_route_name(model)
        if model in draft.routes:
            raise InputError(f"there is a route {model!r} already")
    for model in match.models:
        draft.add_route(model, chains[target])
    return f"routes that clients name as `model`: {', '.join(match.models)}"


def read_query(query: Mapping[str, object], route: str) -> RequestMatch:
    """Reads which requests a query means. Raises InputError for what no route can be chosen by:
    such clients would name `route`.
    """
    other = InputError(
        "a route is chosen by `model`, by one task or for embeddings, each by one equal value: "
        + _OTHERS.format(route=route)
    )
    if len(query) != 1:
        raise other
    [(key, value)] = query.items()
    if key == "$or" and isinstance(value, list):
        matches = [read_query(part, route) for part in value if isinstance(part, Mapping)]
        if len(matches) != len(value) or not all(match.models for match in matches):
            raise other
        models = [model for match in matches for model in match.models]
        return RequestMatch(models=tuple(dict.fromkeys(models)))
    values = _equal_values(value)
    if key == "params.model" and values:
        return RequestMatch(models=values)
    if key == "url.pathname" and values == (_EMBEDDINGS,):
        return RequestMatch(embeddings=True)
    field = key.removeprefix("metadata.")
    task = f"{field}={values[0]}" if field != key and len(values) == 1 else ""
    if task and task.isascii() and task.isprintable() and " " not in task:
        return RequestMatch(task=task)
    raise other


def _equal_values(value: object) -> tuple[str, ...]:
    """The texts that a value has to be one of; none for any other comparison."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Mapping) or len(value) != 1:
        return ()
    [(operator, other)] = value.items()
    if operator == "$eq" and isinstance(other, str):
        return (other,)
    if operator == "$in" and isinstance(other, list):
        texts = [text for text in other if isinstance(text, str)]
        return tuple(dict.fromkeys(texts)) if len(texts) == len(other) else ()
    return ()


def _convert_timeout(
    source: SourceConfig, draft: ConfigDraft, report: ConversionReport
) -> None:
    key = "request_timeout" if "request_timeout" in source.values else "requestTimeout"
    timeout = source.values.get(key)
    if timeout is None:
        return
    try:
        limit_s = as_number(timeout) / 1000
    except InputError as error:
        report.leave((key,), f"{error}")
        return
    for route in draft.routes:
        draft.set_route(route, "total_timeout_s", limit_s)


def _route_name(source: SourceConfig) -> str:
    """The route's name: the configuration's own, else the file's."""
    given = source.values.get("slug") or source.values.get("name") or source.name
    name = _plain_name(str(given))
    return name if name and name != "config" else "default"


def _plain_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:60]
