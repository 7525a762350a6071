"""Converts LiteLLM's proxy configuration (`config.yaml`). Each model name becomes a route, and
its deployments and fallbacks become the route's chain.

Each key of the file gets a note: taken, changed, or left out with a reason. `set_up` reads and
writes the files. Values of keys are never copied, because they may be secrets.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from shlex import quote
from typing import Any, Final

from harness.app.configuration.validation_errors import RANGES
from harness.app.gateways.litellm_providers import (
    KINDS,
    find_vendor,
    public_places,
    vendors,
)
from harness.frame.configuration.config_conversion import ConfigPath, Conversion, SourceConfig
from harness.frame.errors import InputError
from harness.frame.people.access import check_principal_name
from harness.frame.suggestions import did_you_mean
from harness.providers import api_base_rules
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.target import Target
from harness.routing.reliability.breaker import DEFAULT_BREAKER
from harness.routing.reliability.refusal_words import HINTS, LENGTHS
from harness.routing.route_changes import spell_route_name

SECTIONS: Final = ("litellm_settings", "router_settings", "general_settings")
# LiteLLM's keys for each placeholder in `api_base_example`.
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "BASE": ("api_base", "base_url"),
    "REGION": ("aws_region_name", "region_name", "vertex_location"),
    "PROJECT": ("vertex_project",),
}
# By kind: the end of Swapgate's address, then the ends that LiteLLM's address may have.
_ENDINGS: Final = {
    "azure_openai": ("/openai/v1", "/openai", "/models"),
    "ollama": ("/v1",),
}
_FOUNDRY: Final = ".services.ai.azure.com"  # such azure_ai addresses have Azure's v1 API too
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
# By LiteLLM's key: Swapgate's section and name, and a factor and a summand that convert a
# number. Factor 0 stands for a flag.
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
    "cache_read_input_token_cost": (
        "prices",
        "cached_input_usd_per_mtok",
        1e6,
        0,
    ),
    "cache_creation_input_token_cost": (
        "prices",
        "cache_write_usd_per_mtok",
        1e6,
        0,
    ),
}
_TOTAL: Final = "total_timeout_s"
_WHOLE: Final = ("context_window", "tries_per_target", "failures")
_BOTH_PRICES: Final = ("input_cost_per_token", "output_cost_per_token")
_SETTINGS: Final[Mapping[str, _Row]] = {
    **dict.fromkeys(("num_retries", "max_retries"), ("retry", "tries_per_target", 1, 1)),
    **dict.fromkeys(("request_timeout", "timeout"), ("", _TOTAL, 1, 0)),
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
_KEY: Final = "`swapgate key create --help`"
_REASONS: Final[Mapping[str, str]] = {
    key: reason
    for keys, reason in (
        (
            "include",
            "first copy the keys of the included files into this file",
        ),
        (
            "environment_variables",
            "Swapgate copies no values: set them, or put them into .env",
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
            "for affinity, clients send the header x-swapgate-sticky",
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
            f"limits belong to client keys: {_KEY}",
        ),
        ("master_key", f"Swapgate copies no keys: {_KEY} creates new keys"),
        ("cache cache_params", "Swapgate caches no answers"),
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
    """Converts a configuration to Swapgate's. A part that cannot be converted gets a note, and
    does not stop the rest.
    """
    return _Converter(source).convert()


class _Converter:
    def __init__(self, source: SourceConfig) -> None:
        self._source = source
        self._variables: dict[str, None] = {}
        self._providers: dict[str, dict[str, Any]] = {}
        self._known: dict[tuple[str, ...], str] = {}  # a provider's name by its properties
        self._groups: dict[str, list[_Deployment]] = {}
        self._names: dict[str, str] = {}  # the route by LiteLLM's name of a model
        self._routes: dict[str, dict[str, Any]] = {}
        self._patterns: dict[str, tuple[str, str]] = {}  # provider and model by wildcard
        self._mirrors: list[tuple[ConfigPath, str]] = []  # path of a silent_model, and group
        self._own_chain: set[str] = set()  # routes with fallbacks of their own
        self._router: dict[str, Any] = {}

    def convert(self) -> Conversion:
        source = self._source
        for key in _REASONS.keys() & source.values.keys():
            source.leave((key,), _REASONS[key])
        source.read_each(("model_list",), self._read_deployment)
        self._make_routes()
        for section in SECTIONS:
            source.read_each((section, "model_group_alias"), self._read_alias)
        for path, group in self._mirrors:
            self._read_mirror(path, group)
        # LiteLLM uses the chain of `*` for groups without a chain, so we read it last.
        for everyone in (False, True):
            read = partial(self._extend, everyone=everyone)
            for key, section in product(_CHAINS, SECTIONS):
                source.read_each((section, key), partial(source.read_each, reader=read))
        for section in SECTIONS:
            source.read_each((section,), self._read_setting)
        # Each route gets the limit too, so that `route show` prints it.
        for route in self._routes.values() if _TOTAL in self._router else ():
            route[_TOTAL] = self._router[_TOTAL]
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
            "home": ".swapgate",
            **{key: part for key, part in parts.items() if part},
        }
        return Conversion(config, tuple(source.notes()), tuple(self._variables))

    def _read_deployment(self, path: ConfigPath) -> None:
        """Reads an entry of `model_list` into a provider and a group. Raises InputError, which
        becomes the entry's note.
        """
        source = self._source
        where = (*path, "litellm_params")
        name = source.text((*path, "model_name"))
        given = source.value(where)
        mode = source.value((*path, "model_info", "mode")) or "chat"
        if mode not in ("chat", "completion", "embedding", "responses"):
            raise InputError(f"Swapgate serves chats and embeddings, no {mode!s:.40}")
        if not isinstance(given, Mapping):
            raise InputError("its `litellm_params` is not a mapping")
        if "litellm_credential_name" in given:
            raise InputError(_REASONS["credential_list"])
        vendor, model = find_vendor(
            source.text((*where, "model"), "no model"),
            source.text((*where, "custom_llm_provider"), ""),
        )
        if not model:
            raise InputError("its `model` names a provider alone")
        facts = self._read_facts(path)
        source.take((*path, "model_info", "mode"), f"target of {mode}s")
        if mode == "embedding":
            facts.setdefault("models", {})["chat"] = False
        order = source.number((*where, "order"), 0)
        weight = source.number((*where, "weight"), 0)
        provider = self._add_provider(where, vendor)
        for key in _REASONS.keys() & source.value(path).keys():
            source.leave((*path, key), _REASONS[key])
        if "*" in model:
            self._patterns.setdefault(name, (provider, model))
            source.leave(path, "")
            text = (
                f"providers.{provider}. A route serves one model: the models that this file "
                "names have routes; `swapgate route create --help` adds others"
            )
            source.take(path, text, changed=True)
            return
        check_principal_name(_plain(name, f"{provider}/{model}"))
        parameters = facts.pop("parameters", {})
        for part, values in facts.items():
            self._providers[provider].setdefault(part, {}).setdefault(model, {}).update(values)
        target = f"{provider}/{model}"
        source.take((*where, "model"), f"target {target}")
        if source.value((*where, "silent_model")):
            self._mirrors.append(((*where, "silent_model"), name))
        entry = {"target": target, "parameters": parameters} if parameters else target
        found = (order, -weight, int(path[-1]), target, entry)
        self._groups.setdefault(name, []).append(found)

    def _read_facts(self, path: ConfigPath) -> dict[str, dict[str, object]]:
        """Returns a deployment's parameters, its facts about the model, and its prices."""
        source = self._source
        facts = dict[str, dict[str, object]]()

        def read(place: ConfigPath) -> None:
            key = f"{place[-1]}"
            request = place[-2] == "litellm_params"
            if request and key in _REASONS:
                raise InputError(_REASONS[key])
            if request and key in REQUEST_FIELDS:
                facts.setdefault("parameters", {})[key] = source.public(place)
                source.take(place, f"the target's parameters.{key}")
            elif row := _FACTS.get(key):
                both = (self._is_price((*place[:-1], other)) for other in _BOTH_PRICES)
                if row[0] == "prices" and not all(both):
                    raise InputError("Swapgate needs both prices: for input and for output")
                self._put(facts, row, place)

        for section in ("model_info", "litellm_params"):
            source.read_each((*path, section), read)
        return facts

    def _is_price(self, path: ConfigPath) -> bool:
        try:
            return RANGES["input_usd_per_mtok"].holds(self._source.number(path) * 1e6)
        except InputError:
            return False

    def _put(
        self,
        into: dict[str, Any],
        row: _Row,
        path: ConfigPath,
    ) -> None:
        """Converts a number or a flag by its row of the table. Raises InputError outside the
        range.
        """
        part, name, factor, summand = row
        value = self._source.value(path)
        if not factor and not isinstance(value, bool):
            raise InputError("is neither true nor false")
        if factor:
            value = round(self._source.number(path) * factor + summand, 9)
        if factor and (not RANGES[name].holds(value) or (name in _WHOLE and value % 1)):
            whole = "a whole number from " if name in _WHOLE else "from "
            raise InputError(f"gives {name}: {value:g}; it must be {whole}{RANGES[name].text}")
        values = into.setdefault(part, {}) if part else into
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
        clear = bool(source.value(key)) and not source.variable(key)
        variable = source.variable(key) or variable
        identity = (
            vendor,
            kind,
            base,
            source.text(key) if clear else variable,
        )
        if not (name := self._known.get(identity, "")):
            number = sum(known[0] == vendor for known in self._known) + 1
            stem = vendor if vendor == kind else vendor.replace("_", "-")
            name = self._known[identity] = stem if number == 1 else f"{stem}-{number}"
            if clear:
                variable = f"SWAPGATE_{name.replace('-', '_').upper()}_API_KEY"
            entry = {
                "kind": kind,
                "api_base": base,
                "api_key_env": variable,
            }
            self._providers[name] = {field: text for field, text in entry.items() if text}
            self._variables |= {variable: None} if variable else {}
        for part in ("custom_llm_provider", *self._address_keys(path, kind)):
            source.take((*path, part), f"providers.{name}: kind and api_base")
        variable = self._providers[name].get("api_key_env", "")
        text = f"the file has the key in clear, and Swapgate does not copy it: set {variable}"
        text = text if clear else f"providers.{name}.api_key_env: {variable}"
        source.take(key, text, changed=clear)
        return name

    def _read_provider(self, path: ConfigPath, vendor: str) -> tuple[str, str, str]:
        """Returns the provider's kind, its address if the kind has another, and the usual
        variable of its key.
        """
        if vendor not in vendors():
            hint = did_you_mean(vendor, vendors())
            raise InputError(f"Swapgate has no provider {vendor!r}{hint}")
        kind = KINDS.get(vendor, "custom")
        if vendor == "azure_ai" and _FOUNDRY in self._source.text((*path, "api_base"), ""):
            kind = "azure_openai"
        place, usual = public_places().get(vendor, ("", (PROVIDER_KINDS[kind].key_env,)))
        variable = next(
            (name for name in usual if name in self._source.environ),
            usual[0],
        )
        own = PROVIDER_KINDS[kind].api_base
        base = self._read_address(path, kind) or place
        if own and base.removesuffix("/v1") == own.removesuffix("/v1"):
            base = ""
        elif base and kind == "openai":
            # another server with OpenAI's protocol
            kind = "custom"
            variable = ""
        api_base_rules.check_api_base_path(kind, base or own)
        api_base_rules.check_api_base(base or own)
        return kind, base, variable

    def _read_address(self, path: ConfigPath, kind: str) -> str:
        """Returns a deployment's address; empty for its provider's usual address."""
        parts = {
            part: self._source.text((*path, key)).rstrip("/")
            for part, keys in _PARTS.items()
            for key in keys
            if self._source.value((*path, key))
        }
        if address := parts.get("BASE", ""):
            endings = _ENDINGS.get(kind, ("",))
            for ending in endings:
                address = address.removesuffix(ending)
            return address + endings[0]
        address = api_base_rules.api_base_example(kind)
        for part, keys in _PARTS.items():
            if part in address and part not in parts:
                raise InputError(f"needs `{keys[0]}`")
            address = address.replace(part, parts.get(part, ""))
        return address.replace("//global-", "//")

    def _address_keys(self, path: ConfigPath, kind: str) -> Iterator[str]:
        """Returns the keys of the file that form the address."""
        whole = any(self._source.value((*path, key)) for key in _PARTS["BASE"])
        example = "BASE" if whole else api_base_rules.api_base_example(kind)
        return (key for part, keys in _PARTS.items() if part in example for key in keys)

    def _make_routes(self) -> None:
        """Creates a route for each group. A name that no route may have becomes an alias."""
        plain = {name: _plain(name, group[0][3]) for name, group in self._groups.items()}
        for name in sorted(plain, key=lambda name: plain[name] != name):
            route = self._name_route(name, plain[name])
            renamed = "" if route == name else f" Clients can still send {name}, an alias."
            for rank, (*_, index, _, entry) in enumerate(sorted(self._groups[name])):
                text = f"route {route}: "
                if not self._add(route, entry):
                    text += "it has this target already."
                elif rank:
                    text += (
                        "a fallback. The incumbent takes all traffic. For a share of it, give "
                        f"the route a suite, `swapgate route settings {quote(route)} --suite "
                        f"tickets`, then `swapgate proposal create {quote(route)} "
                        f"{_command_name(entry)}`."
                    )
                else:
                    text += "its incumbent."
                path = ("model_list", index, "model_name")
                self._source.take(path, text + renamed, changed=bool(rank or renamed))

    def _name_route(self, name: str, route: str) -> str:
        while route in self._routes:
            route += "-2"
        self._names[name] = route
        return route

    def _add(self, route: str, entry: object) -> bool:
        """Appends a target to a route's chain; returns False if the chain has it already."""
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
        given = value if isinstance(value, Mapping) else {"model": value}
        self._names[alias] = route = self._find(given.get("model"))
        is_hidden = bool(given.get("hidden"))
        text = "; `/v1/models` lists it, although LiteLLM hides it" if is_hidden else ""
        self._source.take(path, f"router.aliases: route {route}{text}", changed=is_hidden)

    def _read_mirror(self, path: ConfigPath, group: str) -> None:
        value = self._source.value(path)
        route = self._names[group]
        first, *others = value if isinstance(value, list) else [value]
        try:
            target = _command_name(self._find_other(first, route))
        except InputError as error:
            self._source.leave(path, f"{error}")
            return
        start = f"`swapgate shadow start {quote(route)} {target} --reason 'a silent_model'`"
        text = f"{start} mirrors 1 % of the callers (see `--share`)"
        text += "; for a model without a known price, add `--usd-per-day none`"
        text += f"; after it ends, start {', '.join(map(str, others))}" if others else ""
        self._source.take(path, text, changed=True)

    def _find_other(self, name: object, route: str) -> object:
        """Returns the target of a name. Raises InputError if it is the route's incumbent."""
        found: object = self._routes[self._find(name)]["incumbent"]
        if found == self._routes[route]["incumbent"]:
            raise InputError(f"{name} is the incumbent of route {route} already")
        return found

    def _find(self, name: object) -> str:
        """Returns the route of LiteLLM's name; creates it if only a wildcard matches."""
        if isinstance(name, str) and name not in self._names:
            self._match(name)
        if not isinstance(name, str) or name not in self._names:
            raise InputError(f"there is no route {name!r}: it was not converted")
        return self._names[name]

    def _match(self, name: str) -> None:
        """Creates the route of a name that only a wildcard covers."""
        # LiteLLM prefers the most specific pattern too.
        for pattern in sorted(self._patterns, key=len, reverse=True):
            parts = re.fullmatch(re.escape(pattern).replace(r"\*", "(.+)"), name)
            if parts is not None:
                provider, model = self._patterns[pattern]
                for part in parts.groups():
                    model = model.replace("*", part, 1)
                self._add(
                    self._name_route(name, _plain(name, model)),
                    f"{provider}/{model}",
                )
                return

    def _extend(self, path: ConfigPath, *, everyone: bool) -> None:
        """Adds a chain's targets to its routes. everyone: reads only chains that apply to all
        routes, which must come after the routes' own.
        """
        every = path[-1] in ("*", "default_fallbacks")
        key = path[1]
        if every != everyone:
            return
        if isinstance(path[-1], int):
            raise InputError("does not map a name to its fallbacks")
        if every:
            routes = tuple(name for name in self._routes if name not in self._own_chain)
        else:
            routes = (self._find(path[-1]),)
            self._own_chain |= {*routes} if key == "fallbacks" else set()
        others, lost = self._read_chain(path)
        lost += [f"itself ({other})" for other in others if routes == (other,)]
        for other, route in product(others, routes):
            if route != other:
                self._add(route, self._routes[other]["incumbent"])
        if key == "content_policy_fallbacks":
            for route in routes:
                self._routes[route]["on_content_policy"] = "fallback"
        whole = "every route without own fallbacks" if self._own_chain else "every route"
        text = f"fallbacks of {whole if every else routes[0]}"
        is_narrow = key in (
            "context_window_fallbacks",
            "content_policy_fallbacks",
        )
        text += ", after any failure" if is_narrow else ""
        text += f", without {', '.join(lost)}: not converted" if lost else ""
        self._source.take(path, text, changed=is_narrow or bool(lost))

    def _read_chain(self, path: ConfigPath) -> tuple[list[str], list[str]]:
        """Returns a chain's routes, and its names and keys that Swapgate cannot convert."""
        if not isinstance(entries := self._source.value(path), list):
            raise InputError("is not a list of names")
        others = list[str]()
        lost = list[str]()
        for entry in entries:
            parts = entry if isinstance(entry, Mapping) else {"model": entry}
            lost += sorted(map(str, parts.keys() - {"model"}))
            try:
                others.append(self._find(parts.get("model")))
            except InputError:
                lost.append(f"{parts.get('model')}")
        return others, lost

    def _read_setting(self, path: ConfigPath) -> None:
        if (key := f"{path[-1]}") == "default_fallbacks":
            self._extend(path, everyone=True)
        elif row := _SETTINGS.get(key):
            self._put(self._router, row, path)
        elif key in _REASONS:
            raise InputError(_REASONS[key])


def _plain(name: str, target: str) -> str:
    """Returns a route's name for a model's name. A bare `*` gives the target's model."""
    plain = spell_route_name(name.replace("*", "")).strip("-")
    return plain or spell_route_name(target.partition("/")[2])


def _command_name(entry: object) -> str:
    """Returns a chain's target, quoted for a shell if necessary."""
    given: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {"target": entry}
    plain = Target.from_name(given["target"])
    name = replace(plain, parameters=given.get("parameters", {})).name
    # A shell reads `#` as a comment only at a word's beginning.
    return name if quote(name.replace("#", "")) == name.replace("#", "") else quote(name)
