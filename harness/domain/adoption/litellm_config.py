"""LiteLLM's proxy configuration (`config.yaml`) becomes Swapgate's: each model name a route,
its deployments and fallbacks the route's chain.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.domain.adoption.config_builder import ConfigDraft, TargetDraft
from harness.domain.adoption.conversion import (
    ConfigPath,
    Conversion,
    ConversionReport,
    SourceConfig,
    as_number,
    as_text,
    named_variables,
)
from harness.domain.adoption.litellm_patterns import (
    ModelPattern,
    find_named_models,
    find_patterns,
)
from harness.domain.adoption.litellm_settings import convert_settings
from harness.domain.adoption.litellm_targets import convert_deployment, convert_provider
from harness.domain.adoption.provider_names import LITELLM_PROVIDERS
from harness.domain.errors import InputError
from harness.domain.routing.route_changes import check_route_name

_SECTIONS: Final = ("router_settings", "litellm_settings")
_ANY: Final = "*"
_Credentials = Mapping[str, tuple[ConfigPath, Mapping[str, object]]]
_CHAINS: Final = {
    "fallbacks": "",
    "context_window_fallbacks": (
        ": a target whose context window is too small is left out, where it is known"
    ),
    "content_policy_fallbacks": ": the route falls over when a content filter refuses",
}


@dataclass(frozen=True, slots=True)
class _Member:
    """One deployment of a model name, in the order in which LiteLLM prefers them."""

    order: float
    weight: float
    index: int
    target: TargetDraft


def convert_litellm(source: SourceConfig) -> Conversion:
    """Converts a proxy's configuration, and says what became of each of its keys."""
    report = ConversionReport(source)
    draft = ConfigDraft(_reserved_variables(source))
    _convert_models(source, draft, report)
    for section in _SECTIONS:
        _convert_aliases(section, source, draft, report)
    for section in _SECTIONS:
        _convert_fallbacks(section, source, draft, report)
    for section in _SECTIONS:
        _complete_aliases(section, source, draft)
    convert_settings(source, draft, report)
    return Conversion(draft.config(), report.notes(), draft.variables)


def _convert_models(source: SourceConfig, draft: ConfigDraft, report: ConversionReport) -> None:
    credentials = _read_credentials(source, report)
    try:
        models = source.items(("model_list",))
    except InputError as error:
        report.leave(("model_list",), f"{error}")
        return
    patterns = find_patterns(models)
    of_patterns = {index for pattern in patterns for index in pattern.indexes}
    groups: dict[str, list[_Member]] = {}
    for index in range(len(models)):
        path: ConfigPath = ("model_list", index)
        if index in of_patterns:
            continue
        try:
            name = _plain(as_text(source.mapping(path).get("model_name")))
            check_route_name(name)
            member = _read_member(index, source, credentials, draft, report)
        except InputError as error:
            report.leave(path, f"{error}")
            continue
        groups.setdefault(name, []).append(member)
    for name, members in groups.items():
        _add_route(name, members, source, draft, report)
    _convert_patterns(patterns, source, credentials, draft, report)


def _convert_patterns(
    patterns: Sequence[ModelPattern],
    source: SourceConfig,
    credentials: _Credentials,
    draft: ConfigDraft,
    report: ConversionReport,
) -> None:
    """A pattern is its deployments' providers, and a route for each model that the file names
    by it and no entry of the list has.
    """
    named: dict[ModelPattern, list[str]] = {pattern: [] for pattern in patterns}
    for name in find_named_models(source):
        pattern = next((pattern for pattern in patterns if pattern.matches(name)), None)
        if pattern is not None and _plain(name) not in draft.routes:
            named[pattern].append(name)
    for pattern, names in named.items():
        taken: dict[int, str] = {}
        for index in pattern.indexes:
            try:
                taken[index] = convert_provider(index, source, credentials, draft, report)
            except InputError as error:
                report.leave(("model_list", index), f"{error}")
        indexes = tuple(taken)
        routes = [
            _plain(name)
            for name in names
            if _add_matched_route(name, pattern, indexes, source, credentials, draft, report)
        ]
        for index, provider in taken.items():
            also = f", and the routes of models that this file names: {', '.join(routes)}"
            report.change(
                ("model_list", index),
                f"providers.{provider}{also if routes else ''}. A route has one name, no "
                f"pattern: for each further model that clients name, `swapgate route create "
                f"NAME {provider}/MODEL`",
            )


def _add_matched_route(
    name: str,
    pattern: ModelPattern,
    indexes: Sequence[int],
    source: SourceConfig,
    credentials: _Credentials,
    draft: ConfigDraft,
    report: ConversionReport,
) -> bool:
    """Whether a model that a pattern matches became a route."""
    members = []
    try:
        check_route_name(_plain(name))
        for index in indexes:
            given = source.mapping(("model_list", index, "litellm_params")).get("model")
            model = pattern.model_for(name, as_text(given))
            members.append(_read_member(index, source, credentials, draft, report, model=model))
    except InputError:
        return False  # what names it says that there is no such route
    for member in _in_order(members):
        if _plain(name) not in draft.routes:
            draft.add_route(_plain(name), [])
        draft.add_fallback(_plain(name), member.target)
    return bool(members)


def _read_member(
    index: int,
    source: SourceConfig,
    credentials: _Credentials,
    draft: ConfigDraft,
    report: ConversionReport,
    *,
    model: str = "",
) -> _Member:
    target = convert_deployment(index, source, credentials, draft, report, model=model)
    parameters = source.mapping(("model_list", index, "litellm_params"))
    order = parameters.get("order")
    weight = parameters.get("weight")
    return _Member(
        as_number(order) if order is not None else 0.0,
        as_number(weight) if weight is not None else 0.0,
        index,
        target,
    )


def _in_order(members: Sequence[_Member]) -> list[_Member]:
    return sorted(members, key=lambda member: (member.order, -member.weight, member.index))


def _add_route(
    name: str,
    members: Sequence[_Member],
    source: SourceConfig,
    draft: ConfigDraft,
    report: ConversionReport,
) -> None:
    draft.add_route(name, [])
    for place, member in enumerate(_in_order(members)):
        path: ConfigPath = ("model_list", member.index, "model_name")
        given = source.mapping(path[:2])["model_name"]
        renamed = f" Clients send {name}: a route's name has no '/'" if given != name else ""
        if not draft.add_fallback(name, member.target):
            report.change(path, f"route {name}, which has this target already.{renamed}")
        elif place == 0 and renamed:
            report.change(path, f"route {name}: its incumbent.{renamed}")
        elif place == 0:
            report.take(path, f"route {name}: its incumbent")
        else:
            report.change(
                path,
                f"route {name}: its fallback {place}. LiteLLM spreads traffic over all of a "
                f"name's deployments; here the incumbent takes all that it can.{renamed}",
            )


def _convert_aliases(
    section: str, source: SourceConfig, draft: ConfigDraft, report: ConversionReport
) -> None:
    path = (section, "model_group_alias")
    try:
        aliases = source.mapping(path)
    except InputError as error:
        report.leave(path, f"{error}")
        return
    for alias, value in aliases.items():
        name = _aliased_name(value)
        if name not in draft.routes:
            report.leave((*path, alias), f"there is no route {name!r}: it was not taken over")
            continue
        try:
            draft.add_route(alias, draft.routes[name])
            report.take((*path, alias), f"route {alias}, with the targets of {name}")
        except InputError as error:
            report.leave((*path, alias), f"{error}")


def _complete_aliases(section: str, source: SourceConfig, draft: ConfigDraft) -> None:
    """An alias falls back as the name that it stands for."""
    aliases = source.values.get(section)
    aliases = aliases.get("model_group_alias") if isinstance(aliases, Mapping) else None
    for alias, value in aliases.items() if isinstance(aliases, Mapping) else ():
        for target in draft.routes.get(_aliased_name(value), ()):
            if alias in draft.routes:
                draft.add_fallback(alias, target)


def _aliased_name(value: object) -> str:
    name = value.get("model") if isinstance(value, Mapping) else value
    return _plain(str(name))


def _convert_fallbacks(
    section: str, source: SourceConfig, draft: ConfigDraft, report: ConversionReport
) -> None:
    for key, remark in _CHAINS.items():
        for path, name, names in _chains((section, key), source, report):
            routes = list(draft.routes) if name == _ANY else [_plain(name)]
            try:
                missing = {one for route in routes for one in _extend(route, names, draft)}
            except InputError as error:
                report.leave(path, f"{error}")
                continue
            if key == "content_policy_fallbacks":
                for route in routes:
                    draft.set_route(route, "on_content_policy", "fallback")
            _note_chain(path, name, missing, remark, report)
    path = (section, "default_fallbacks")
    try:
        names = [as_text(name) for name in source.items(path)]
    except InputError as error:
        report.leave(path, f"{error}")
        return
    missing = {one for route in list(draft.routes) for one in _extend(route, names, draft)}
    if names:
        _note_chain(path, _ANY, missing, "", report)


def _note_chain(
    path: ConfigPath, name: str, missing: set[str], remark: str, report: ConversionReport
) -> None:
    routes = "every route" if name == _ANY else _plain(name)
    if missing:
        report.change(
            path,
            f"fallbacks of {routes}, without {', '.join(sorted(missing))}: not taken over"
            + remark,
        )
    else:
        report.take(path, f"fallbacks of {routes}{remark}")


def _chains(
    path: ConfigPath, source: SourceConfig, report: ConversionReport
) -> Iterator[tuple[ConfigPath, str, list[str]]]:
    """Each (path, route, names of what it falls back to)."""
    try:
        entries = source.items(path)
    except InputError as error:
        report.leave(path, f"{error}")
        return
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            report.leave((*path, index), "is not a mapping of a name to names")
            continue
        for route, names in entry.items():
            known = isinstance(names, Sequence) and all(isinstance(n, str) for n in names)
            if not known or isinstance(names, str):
                report.leave((*path, index, route), "is not a list of names")
                continue
            yield (*path, index, route), str(route), [str(name) for name in names]


def _extend(route: str, names: Sequence[str], draft: ConfigDraft) -> list[str]:
    """Puts the targets of other routes behind the chain; returns the names that were not taken
    over. Raises InputError for such a route.
    """
    if route not in draft.routes:
        raise InputError(f"there is no route {route!r}: it was not taken over")
    for name in map(_plain, names):
        if name != route and name in draft.routes:
            draft.add_fallback(route, draft.routes[name][0])
    return [name for name in names if _plain(name) not in draft.routes]


def _plain(name: str) -> str:
    """A model name as a route's: those have no slash."""
    return name.replace("/", "-")


def _read_credentials(source: SourceConfig, report: ConversionReport) -> _Credentials:
    """`credential_list`, by name; deployments name what they use."""
    found: dict[str, tuple[ConfigPath, Mapping[str, object]]] = {}
    try:
        entries = source.items(("credential_list",))
    except InputError as error:
        report.leave(("credential_list",), f"{error}")
        return found
    for index, entry in enumerate(entries):
        path: ConfigPath = ("credential_list", index)
        values = entry.get("credential_values") if isinstance(entry, Mapping) else None
        if not (isinstance(entry, Mapping) and isinstance(values, Mapping)):
            report.leave(path, "has no `credential_values`")
            continue
        found[str(entry.get("credential_name"))] = (path, values)
        report.take(path, "the address and the key's variable of the providers that name it")
    return found


def _reserved_variables(source: SourceConfig) -> frozenset[str]:
    """Variables that keys in clear may not take: the file names them, or a deployment without a
    key reads them.
    """
    usual = set()
    models = source.values.get("model_list")
    for entry in models if isinstance(models, list) else ():
        parameters = entry.get("litellm_params") if isinstance(entry, Mapping) else None
        if isinstance(parameters, Mapping) and "api_key" not in parameters:
            prefix = str(parameters.get("model", "")).partition("/")[0]
            known = LITELLM_PROVIDERS.get(prefix) or LITELLM_PROVIDERS["openai"]
            usual.add(known.key_env)
    return named_variables(source.values) | usual
