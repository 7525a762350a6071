"""Converts LiteLLM's proxy configuration (`config.yaml`). Each model name becomes a route, and
its deployments and fallbacks become the route's chain.

Each key of the file gets a note: taken, changed, or not taken with a reason. `set_up` reads and
writes the files. This module never copies values of API keys, because they are secrets.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from shlex import quote
from typing import Any, Final

from harness.app.gateways.litellm_providers import (
    KINDS,
    find_vendor,
    list_vendors,
    load_public_places,
)
from harness.frame.configuration.config_conversion import ConfigPath, Conversion, SourceConfig
from harness.frame.configuration.setting import Declaration, settings_of
from harness.frame.errors import InputError
from harness.frame.people.access import check_principal_name
from harness.frame.suggestions import did_you_mean
from harness.providers import api_base_rules
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.models.capabilities import Capabilities
from harness.providers.target import Price, Target
from harness.routing.reliability.breaker import DEFAULT_BREAKER, BreakerPolicy
from harness.routing.reliability.refusal_words import HINTS, LENGTHS
from harness.routing.reliability.retry import RetryPolicy
from harness.routing.route_changes import spell_route_name
from harness.routing.settings import RouterSettings

SECTIONS: Final = ("litellm_settings", "router_settings", "general_settings")
# LiteLLM's keys for each placeholder in `api_base_example`.
_KEYS_BY_PLACEHOLDER: Final[Mapping[str, tuple[str, ...]]] = {
    "BASE": ("api_base", "base_url"),
    "REGION": ("aws_region_name", "region_name", "vertex_location"),
    "PROJECT": ("vertex_project",),
}
# Maps a kind to the end of Swapproof's address, and then to the ends that LiteLLM's address may
# have.
_ADDRESS_ENDINGS: Final = {
    "azure_openai": ("/openai/v1", "/openai", "/models"),
    "ollama": ("/v1",),
}
_FOUNDRY_DOMAIN: Final = (
    ".services.ai.azure.com"  # azure_ai addresses of this domain have Azure's v1 API, too
)
# Fields of a request that become a target's parameters.
REQUEST_FIELDS: Final = frozenset(
    {
        *HINTS,
        *LENGTHS,
        "stop",
        "n",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "thinking",
        "response_format",
        "tools",
        "tool_choice",
        "modalities",
        "prediction",
        "dimensions",
        "encoding_format",
        "truncation",
    }
)
# A row has Swapproof's section and name, and the factor and summand that convert a number. The
# factor 0 marks a flag. LiteLLM's key finds the row.
_Row = tuple[str, str, float, int]
_FACTS: Final[Mapping[str, _Row]] = {
    **{
        f"supports_{theirs}": ("models", ours, 0, 0)
        for theirs, ours in (
            ("vision", "vision"),
            ("function_calling", "tools"),
            ("reasoning", "reasoning"),
            ("response_schema", "json_schema"),
            ("native_streaming", "stream"),
            ("prompt_caching", "caching"),
            ("parallel_function_calling", "parallel_tools"),
        )
    },
    "max_input_tokens": ("models", "context_window", 1, 0),
    "timeout": ("models", "first_byte_timeout_s", 1, 0),
    "stream_timeout": ("models", "first_token_timeout_s", 1, 0),
    "input_cost_per_token": ("prices", "input_usd_per_mtok", 1e6, 0),
    "output_cost_per_token": ("prices", "output_usd_per_mtok", 1e6, 0),
    "cache_read_input_token_cost": ("prices", "cached_input_usd_per_mtok", 1e6, 0),
    "cache_creation_input_token_cost": ("prices", "cache_write_usd_per_mtok", 1e6, 0),
}
_TOTAL_TIMEOUT: Final = "total_timeout_s"
# The records that declare the ranges, by the section of a row.
_RECORDS: Final[Mapping[str, type]] = {
    "models": Capabilities,
    "prices": Price,
    "retry": RetryPolicy,
    "breaker": BreakerPolicy,
    "": RouterSettings,
}
_BOTH_PRICES: Final = ("input_cost_per_token", "output_cost_per_token")
_SETTINGS: Final[Mapping[str, _Row]] = {
    **dict.fromkeys(("num_retries", "max_retries"), ("retry", "tries_per_target", 1, 1)),
    **dict.fromkeys(("request_timeout", "timeout"), ("", _TOTAL_TIMEOUT, 1, 0)),
    "stream_timeout": ("", "first_token_timeout_s", 1, 0),
    "allowed_fails": ("breaker", "failures", 1, 1),
    "cooldown_time": ("breaker", "open_s", 1, 0),
    "health_check_interval": ("", "health_check_interval_s", 1, 0),
}
_CHAINS: Final = (
    "fallbacks",
    "context_window_fallbacks",
    "content_policy_fallbacks",
)
_KEY_COMMAND: Final = "`swapproof key create --help`"
_REASONS: Final[Mapping[str, str]] = {
    key: reason
    for keys, reason in (
        (
            "include",
            "first copy the keys of the included files into this file",
        ),
        (
            "environment_variables",
            "Swapproof copies no values: set them, or put them into .env",
        ),
        (
            "credential_list",
            "write the credential's api_base and api_key into the deployment",
        ),
        (
            "extra_body",
            "may hold a secret: write it into the target's parameters",
        ),
        (
            "headers extra_headers",
            "may hold a secret: write it into the provider's `extra_headers`",
        ),
        (
            "optional_pre_call_checks",
            "for affinity, clients send the header x-swapproof-sticky",
        ),
        (
            "routing_strategy",
            "a new model gets a share by a proposal: see its model_name",
        ),
        (
            "weight order",
            "it only determines the order of the chain: see its model_name",
        ),
        (
            "max_retries",
            "the router retries: set num_retries in the settings",
        ),
        ("api_version", "the address of Azure's v1 API needs no version"),
        (
            "rpm tpm max_budget budget_duration",
            f"limits belong to client keys: {_KEY_COMMAND}",
        ),
        ("master_key", f"Swapproof copies no keys: {_KEY_COMMAND} creates new keys"),
        ("cache cache_params", "Swapproof caches no answers"),
        ("alerting alert_types", "list the receivers in alerts.sinks"),
        (
            "callbacks success_callback failure_callback",
            "set router.tracing.otlp_endpoint",
        ),
        (
            "drop_params",
            "the router omits unsupported fields, and its response reports this",
        ),
    )
    for key in keys.split()
}
# LiteLLM's order, negative weight, position in the file, PROVIDER/MODEL, entry of the chain
_Deployment = tuple[float, float, int, str, object]


def convert_litellm(source: SourceConfig) -> Conversion:
    """Converts a configuration to Swapproof's. A part that Swapproof cannot convert gets a
    note, and does not stop the conversion.
    """
    return _Converter(source).convert()


class _Converter:
    def __init__(self, source: SourceConfig) -> None:
        self._source = source
        self._variables: dict[str, None] = {}
        self._providers: dict[str, dict[str, Any]] = {}
        self._provider_names: dict[
            tuple[str, ...], str
        ] = {}  # a provider's name by its properties
        self._groups: dict[str, list[_Deployment]] = {}
        self._names: dict[str, str] = {}  # the route by LiteLLM's name of a model
        self._routes: dict[str, dict[str, Any]] = {}
        self._patterns: dict[str, tuple[str, str]] = {}  # provider and model by wildcard
        self._mirrors: list[tuple[ConfigPath, str]] = []  # path of a silent_model, and group
        self._routes_with_chain: set[str] = set()  # routes with fallbacks of their own
        self._router: dict[str, Any] = {}

    def convert(self) -> Conversion:
        source = self._source
        for key in _REASONS.keys() & source.values.keys():
            source.leave((key,), _REASONS[key])
        source.read_each(("model_list",), self._read_deployment)
        self._create_routes()
        for section in SECTIONS:
            source.read_each((section, "model_group_alias"), self._read_alias)
        for path, group in self._mirrors:
            self._read_mirror(path, group)
        # LiteLLM uses the chain of `*` for groups without a chain, so the converter reads it
        # last.
        for for_all_routes in (False, True):
            read = partial(self._read_fallbacks, for_all_routes=for_all_routes)
            for key, section in product(_CHAINS, SECTIONS):
                source.read_each((section, key), partial(source.read_each, reader=read))
        for section in SECTIONS:
            source.read_each((section,), self._read_setting)
        # Each route gets the limit, too, so that `route show` prints it.
        for route in self._routes.values() if _TOTAL_TIMEOUT in self._router else ():
            route[_TOTAL_TIMEOUT] = self._router[_TOTAL_TIMEOUT]
        # The longest pattern comes first, because the router uses the first match.
        names = sorted(self._names.items(), key=lambda name: -len(name[0]))
        if aliases := {name: route for name, route in names if name != route}:
            self._router["aliases"] = aliases
        parts = {
            "router": self._router,
            "providers": self._providers,
            "routes": self._routes,
        }
        config = {
            "home": ".swapproof",
            **{key: part for key, part in parts.items() if part},
        }
        return Conversion(config, tuple(source.notes()), tuple(self._variables))

    def _read_deployment(self, path: ConfigPath) -> None:
        """Reads an entry of `model_list` into a provider and a group. Raises InputError, which
        becomes the entry's note.
        """
        source = self._source
        parameters_path = (*path, "litellm_params")
        name = source.text((*path, "model_name"))
        litellm_parameters = source.value(parameters_path)
        mode = source.value((*path, "model_info", "mode")) or "chat"
        if mode not in ("chat", "completion", "embedding", "responses"):
            raise InputError(f"Swapproof serves chats and embeddings, no {mode!s:.40}")
        if not isinstance(litellm_parameters, Mapping):
            raise InputError("its `litellm_params` is not a mapping")
        if "litellm_credential_name" in litellm_parameters:
            raise InputError(_REASONS["credential_list"])
        vendor, model = find_vendor(
            source.text((*parameters_path, "model"), "no model"),
            source.text((*parameters_path, "custom_llm_provider"), ""),
        )
        if not model:
            raise InputError("its `model` names a provider alone")
        facts = self._read_facts(path)
        source.take((*path, "model_info", "mode"), f"target of {mode}s")
        if mode == "embedding":
            facts.setdefault("models", {})["chat"] = False
        order = source.number((*parameters_path, "order"), 0)
        weight = source.number((*parameters_path, "weight"), 0)
        provider = self._add_provider(parameters_path, vendor)
        for key in _REASONS.keys() & source.value(path).keys():
            source.leave((*path, key), _REASONS[key])
        if "*" in model:
            self._patterns.setdefault(name, (provider, model))
            source.leave(path, "")
            text = (
                f"providers.{provider}. A route serves one model: the models that this file "
                "names have routes; `swapproof route create --help` adds others"
            )
            source.take(path, text, changed=True)
            return
        check_principal_name(_convert_route_name(name, f"{provider}/{model}"))
        parameters = facts.pop("parameters", {})
        for part, values in facts.items():
            self._providers[provider].setdefault(part, {}).setdefault(model, {}).update(values)
        target = f"{provider}/{model}"
        source.take((*parameters_path, "model"), f"target {target}")
        if source.value((*parameters_path, "silent_model")):
            self._mirrors.append(((*parameters_path, "silent_model"), name))
        entry = {"target": target, "parameters": parameters} if parameters else target
        deployment = (order, -weight, int(path[-1]), target, entry)
        self._groups.setdefault(name, []).append(deployment)

    def _read_facts(self, path: ConfigPath) -> dict[str, dict[str, object]]:
        """Returns a deployment's parameters, its facts about the model, and its prices."""
        source = self._source
        facts = dict[str, dict[str, object]]()

        def read(place: ConfigPath) -> None:
            key = f"{place[-1]}"
            is_parameter = place[-2] == "litellm_params"
            if is_parameter and key in _REASONS:
                raise InputError(_REASONS[key])
            if is_parameter and key in REQUEST_FIELDS:
                facts.setdefault("parameters", {})[key] = source.public(place)
                source.take(place, f"the target's parameters.{key}")
            elif row := _FACTS.get(key):
                have_prices = (self._is_price((*place[:-1], other)) for other in _BOTH_PRICES)
                if row[0] == "prices" and not all(have_prices):
                    raise InputError("Swapproof needs both prices: for input and for output")
                self._convert_value(facts, row, place)

        for section in ("model_info", "litellm_params"):
            source.read_each((*path, section), read)
        return facts

    def _is_price(self, path: ConfigPath) -> bool:
        try:
            usd_per_mtok = self._source.number(path) * 1e6
        except InputError:
            return False
        return settings_of(Price)["input_usd_per_mtok"].holds(usd_per_mtok)

    def _convert_value(self, records: dict[str, Any], row: _Row, path: ConfigPath) -> None:
        """Converts a number or a flag by its row. Raises InputError outside the range."""
        part, name, factor, summand = row
        value = self._source.value(path)
        if not factor and not isinstance(value, bool):
            raise InputError("is neither true nor false")
        if factor:
            value = round(self._source.number(path) * factor + summand, 9)
            _check_number(settings_of(_RECORDS[part])[name], value)
        values = records.setdefault(part, {}) if part else records
        values[name] = value
        text = f"{part}{'.' if part else ''}{name}: {value}"
        if name == "open_s" and value > DEFAULT_BREAKER.open_max_s:
            values["open_max_s"] = value
            text += f", breaker.open_max_s: {value}"
        self._source.take(path, text, changed=path[0] != "model_list")

    def _add_provider(self, path: ConfigPath, vendor: str) -> str:
        """Finds or creates the provider of a deployment. Returns its name. Deployments with the
        same vendor, address and key share a provider.
        """
        kind, base, variable = self._read_provider(path, vendor)
        key = (*path, "api_key")
        source = self._source
        is_in_clear = bool(source.value(key)) and not source.variable(key)
        variable = source.variable(key) or variable
        identity = (
            vendor,
            kind,
            base,
            source.text(key) if is_in_clear else variable,
        )
        if not (name := self._provider_names.get(identity, "")):
            number = (
                sum(other_identity[0] == vendor for other_identity in self._provider_names) + 1
            )
            stem = vendor if vendor == kind else vendor.replace("_", "-")
            name = self._provider_names[identity] = stem if number == 1 else f"{stem}-{number}"
            if is_in_clear:
                variable = f"SWAPPROOF_{name.replace('-', '_').upper()}_API_KEY"
            entry = {
                "kind": kind,
                "api_base": base,
                "api_key_env": variable,
            }
            self._providers[name] = {field: text for field, text in entry.items() if text}
            self._variables |= {variable: None} if variable else {}
        for part in ("custom_llm_provider", *self._list_address_keys(path, kind)):
            source.take((*path, part), f"providers.{name}: kind and api_base")
        variable = self._providers[name].get("api_key_env", "")
        text = f"the file has the key in clear, and Swapproof does not copy it: set {variable}"
        text = text if is_in_clear else f"providers.{name}.api_key_env: {variable}"
        source.take(key, text, changed=is_in_clear)
        return name

    def _read_provider(self, path: ConfigPath, vendor: str) -> tuple[str, str, str]:
        """Returns the provider's kind, its address if it differs from the kind's address, and
        the usual variable of its key.
        """
        if vendor not in list_vendors():
            hint = did_you_mean(vendor, list_vendors())
            raise InputError(f"Swapproof has no provider {vendor!r}{hint}")
        kind = KINDS.get(vendor, "custom")
        if vendor == "azure_ai" and _FOUNDRY_DOMAIN in self._source.text(
            (*path, "api_base"), ""
        ):
            kind = "azure_openai"
        place, usual_variables = load_public_places().get(
            vendor, ("", (PROVIDER_KINDS[kind].key_env,))
        )
        variable = next(
            (name for name in usual_variables if name in self._source.environ),
            usual_variables[0],
        )
        own_address = PROVIDER_KINDS[kind].api_base
        base = self._read_address(path, kind) or place
        if own_address and base.removesuffix("/v1") == own_address.removesuffix("/v1"):
            base = ""
        elif base and kind == "openai":
            # another server with OpenAI's protocol
            kind = "custom"
            variable = ""
        api_base_rules.check_api_base_path(kind, base or own_address)
        api_base_rules.check_api_base(base or own_address)
        return kind, base, variable

    def _read_address(self, path: ConfigPath, kind: str) -> str:
        """Returns a deployment's address; empty for its provider's usual address."""
        parts = {
            part: self._source.text((*path, key)).rstrip("/")
            for part, keys in _KEYS_BY_PLACEHOLDER.items()
            for key in keys
            if self._source.value((*path, key))
        }
        if address := parts.get("BASE", ""):
            endings = _ADDRESS_ENDINGS.get(kind, ("",))
            for ending in endings:
                address = address.removesuffix(ending)
            return address + endings[0]
        address = api_base_rules.api_base_example(kind)
        for part, keys in _KEYS_BY_PLACEHOLDER.items():
            if part in address and part not in parts:
                raise InputError(f"needs `{keys[0]}`")
            address = address.replace(part, parts.get(part, ""))
        return address.replace("//global-", "//")

    def _list_address_keys(self, path: ConfigPath, kind: str) -> Iterator[str]:
        """Returns the keys of the file that form the address."""
        has_base = any(self._source.value((*path, key)) for key in _KEYS_BY_PLACEHOLDER["BASE"])
        example = "BASE" if has_base else api_base_rules.api_base_example(kind)
        return (
            key
            for part, keys in _KEYS_BY_PLACEHOLDER.items()
            if part in example
            for key in keys
        )

    def _create_routes(self) -> None:
        """Creates a route for each group. A group's name that is invalid for a route becomes an
        alias.
        """
        route_names = {
            name: _convert_route_name(name, group[0][3]) for name, group in self._groups.items()
        }
        for name in sorted(route_names, key=lambda name: route_names[name] != name):
            route = self._name_route(name, route_names[name])
            alias_text = "" if route == name else f" Clients can still send {name}, an alias."
            for rank, (*_, index, _, entry) in enumerate(sorted(self._groups[name])):
                text = f"route {route}: "
                if not self._append_target(route, entry):
                    text += "it has this target already."
                elif rank:
                    text += (
                        "a fallback. The incumbent takes all traffic. For a share of it, give "
                        f"the route a suite, `swapproof route settings {quote(route)} --suite "
                        f"tickets`, then `swapproof proposal create {quote(route)} "
                        f"{_format_target(entry)}`."
                    )
                else:
                    text += "its incumbent."
                path = ("model_list", index, "model_name")
                self._source.take(path, text + alias_text, changed=bool(rank or alias_text))

    def _name_route(self, name: str, route: str) -> str:
        while route in self._routes:
            route += "-2"
        self._names[name] = route
        return route

    def _append_target(self, route: str, entry: object) -> bool:
        """Appends a target to a route's chain. Returns False if the chain has the target
        already.
        """
        chain = self._routes.setdefault(route, {})
        if entry in (chain.get("incumbent"), *chain.get("fallbacks", ())):
            return False
        if chain:
            chain.setdefault("fallbacks", []).append(entry)
        else:
            chain["incumbent"] = entry
        return True

    def _read_alias(self, path: ConfigPath) -> None:
        alias = f"{path[-1]}"
        value = self._source.value(path)
        if alias in self._names or alias in self._routes:
            raise InputError(f"there is a route {alias!r} already")
        alias_entry = value if isinstance(value, Mapping) else {"model": value}
        self._names[alias] = route = self._find_route(alias_entry.get("model"))
        is_hidden = bool(alias_entry.get("hidden"))
        text = "; `/v1/models` lists it, although LiteLLM hides it" if is_hidden else ""
        self._source.take(path, f"router.aliases: route {route}{text}", changed=is_hidden)

    def _read_mirror(self, path: ConfigPath, group: str) -> None:
        value = self._source.value(path)
        route = self._names[group]
        first_name, *later_names = value if isinstance(value, list) else [value]
        try:
            target = _format_target(self._find_mirror_target(first_name, route))
        except InputError as error:
            self._source.leave(path, f"{error}")
            return
        start = f"`swapproof shadow start {quote(route)} {target} --reason 'a silent_model'`"
        text = f"{start} mirrors 1 % of the callers (see `--share`)"
        text += "; for a model without a known price, add `--usd-per-day none`"
        text += (
            f"; after it ends, start {', '.join(map(str, later_names))}" if later_names else ""
        )
        self._source.take(path, text, changed=True)

    def _find_mirror_target(self, name: object, route: str) -> object:
        """Returns the target of a name. Raises InputError if it is the route's incumbent."""
        target: object = self._routes[self._find_route(name)]["incumbent"]
        if target == self._routes[route]["incumbent"]:
            raise InputError(f"{name} is the incumbent of route {route} already")
        return target

    def _find_route(self, name: object) -> str:
        """Returns the route of LiteLLM's name. Creates the route if only a wildcard matches.
        Raises InputError.
        """
        if isinstance(name, str) and name not in self._names:
            self._create_by_wildcard(name)
        if not isinstance(name, str) or name not in self._names:
            raise InputError(f"there is no route {name!r}: it was not converted")
        return self._names[name]

    def _create_by_wildcard(self, name: str) -> None:
        """Creates the route of a name that only a wildcard covers."""
        # LiteLLM, too, prefers the most specific pattern.
        for pattern in sorted(self._patterns, key=len, reverse=True):
            parts = re.fullmatch(re.escape(pattern).replace(r"\*", "(.+)"), name)
            if parts is not None:
                provider, model = self._patterns[pattern]
                for part in parts.groups():
                    model = model.replace("*", part, 1)
                self._append_target(
                    self._name_route(name, _convert_route_name(name, model)),
                    f"{provider}/{model}",
                )
                return

    def _read_fallbacks(self, path: ConfigPath, *, for_all_routes: bool) -> None:
        """Adds a chain's targets to its routes.

        Args:
            for_all_routes: whether to read only the chains for all routes. They must come after
                the chains of single routes.
        """
        is_for_all = path[-1] in ("*", "default_fallbacks")
        key = path[1]
        if is_for_all != for_all_routes:
            return
        if isinstance(path[-1], int):
            raise InputError("does not map a name to its fallbacks")
        if is_for_all:
            routes = tuple(name for name in self._routes if name not in self._routes_with_chain)
        else:
            routes = (self._find_route(path[-1]),)
            self._routes_with_chain |= {*routes} if key == "fallbacks" else set()
        fallback_routes, unconverted = self._read_chain(path)
        unconverted += [f"itself ({other})" for other in fallback_routes if routes == (other,)]
        for other, route in product(fallback_routes, routes):
            if route != other:
                self._append_target(route, self._routes[other]["incumbent"])
        if key == "content_policy_fallbacks":
            for route in routes:
                self._routes[route]["on_content_policy"] = "fallback"
        scope = (
            "every route without own fallbacks" if self._routes_with_chain else "every route"
        )
        text = f"fallbacks of {scope if is_for_all else routes[0]}"
        is_narrow = key in (
            "context_window_fallbacks",
            "content_policy_fallbacks",
        )
        text += ", after any failure" if is_narrow else ""
        text += f", without {', '.join(unconverted)}: not converted" if unconverted else ""
        self._source.take(path, text, changed=is_narrow or bool(unconverted))

    def _read_chain(self, path: ConfigPath) -> tuple[list[str], list[str]]:
        """Returns a chain's routes. Also returns the names and keys that Swapproof cannot
        convert.
        """
        if not isinstance(entries := self._source.value(path), list):
            raise InputError("is not a list of names")
        fallback_routes = list[str]()
        unconverted = list[str]()
        for entry in entries:
            parts = entry if isinstance(entry, Mapping) else {"model": entry}
            unconverted += sorted(map(str, parts.keys() - {"model"}))
            try:
                fallback_routes.append(self._find_route(parts.get("model")))
            except InputError:
                unconverted.append(f"{parts.get('model')}")
        return fallback_routes, unconverted

    def _read_setting(self, path: ConfigPath) -> None:
        if (key := f"{path[-1]}") == "default_fallbacks":
            self._read_fallbacks(path, for_all_routes=True)
        elif row := _SETTINGS.get(key):
            self._convert_value(self._router, row, path)
        elif key in _REASONS:
            raise InputError(_REASONS[key])


def _check_number(declared: Declaration, value: float) -> None:
    """Raises InputError for a number that the setting does not take."""
    is_whole = declared.kind is int
    if declared.range and (not declared.holds(value) or (is_whole and value % 1)):
        allowed = f"{'a whole number ' if is_whole else ''}from {declared.range.text}"
        raise InputError(f"gives {declared.name}: {value:g}; it must be {allowed}")


def _convert_route_name(name: str, target: str) -> str:
    """Returns a route's name for a model's name. A bare `*` gives the target's model."""
    route_name = spell_route_name(name.replace("*", "")).strip("-")
    return route_name or spell_route_name(target.partition("/")[2])


def _format_target(entry: object) -> str:
    """Returns a chain's target, quoted for a shell if necessary."""
    entry_fields: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {"target": entry}
    target = Target.from_name(entry_fields["target"])
    name = replace(target, parameters=entry_fields.get("parameters", {})).name
    # A shell reads `#` as a comment only at the beginning of a word.
    return name if quote(name.replace("#", "")) == name.replace("#", "") else quote(name)
