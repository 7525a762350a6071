"""Converts LiteLLM's proxy configuration (`config.yaml`). Each model name becomes a route, and
its deployments and fallbacks become the route's chain.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from harness.frame.config_conversion import ConfigPath, Conversion, SourceConfig
from harness.frame.errors import InputError
from harness.frame.suggestions import did_you_mean
from harness.providers import api_base_rules
from harness.providers.kinds import PROVIDER_KINDS
from harness.routing.reliability.breaker import DEFAULT_BREAKER
from harness.routing.reliability.request_repair import HINTS, LENGTHS
from harness.routing.route_changes import spell_route_name

SECTIONS: Final = ("litellm_settings", "router_settings", "general_settings")
# Our provider kind by LiteLLM's provider name.
_KINDS: Final[Mapping[str, str]] = {
    **{kind: kind for kind in ("openai", "anthropic", "gemini", "bedrock", "groq", "deepseek")},
    **{kind: kind for kind in ("mistral", "openrouter", "ollama", "lm_studio", "vllm")},
    "litellm_proxy": "litellm",
    "llamafile": "llama_cpp",
    "azure": "azure_openai",
    "vertex_ai": "vertex",
    "ollama_chat": "ollama",
    "hosted_vllm": "vllm",
    "bedrock_converse": "bedrock",
    **dict.fromkeys(("openai_like", "custom_openai", "azure_ai"), "custom"),
}
# Providers that speak OpenAI's protocol: name, address, and the usual variable of the key.
_PLACES: Final[Mapping[str, tuple[str, str]]] = {
    line.split()[0]: (f"https://{line.split()[1]}", line.split()[2])
    for line in (
        "cerebras api.cerebras.ai/v1 CEREBRAS_API_KEY",
        "dashscope dashscope-intl.aliyuncs.com/compatible-mode/v1 DASHSCOPE_API_KEY",
        "deepinfra api.deepinfra.com/v1/openai DEEPINFRA_API_KEY",
        "fireworks_ai api.fireworks.ai/inference/v1 FIREWORKS_AI_API_KEY",
        "github models.inference.ai.azure.com GITHUB_API_KEY",
        "hyperbolic api.hyperbolic.xyz/v1 HYPERBOLIC_API_KEY",
        "moonshot api.moonshot.ai/v1 MOONSHOT_API_KEY",
        "nebius api.studio.nebius.ai/v1 NEBIUS_API_KEY",
        "novita api.novita.ai/v3/openai NOVITA_API_KEY",
        "nvidia_nim integrate.api.nvidia.com/v1 NVIDIA_NIM_API_KEY",
        "perplexity api.perplexity.ai PERPLEXITYAI_API_KEY",
        "sambanova api.sambanova.ai/v1 SAMBANOVA_API_KEY",
        "together_ai api.together.xyz/v1 TOGETHERAI_API_KEY",
        "volcengine ark.cn-beijing.volces.com/api/v3 VOLCENGINE_API_KEY",
        "xai api.x.ai/v1 XAI_API_KEY",
        "zai api.z.ai/api/paas/v4 ZAI_API_KEY",
    )
}
_VENDORS: Final = (*_KINDS, *_PLACES)
# The keys that may contain each part of an address such as `api_base_example`.
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "BASE": ("api_base", "base_url"),
    "REGION": ("aws_region_name", "region_name", "vertex_location"),
    "PROJECT": ("vertex_project",),
}
# The end of our address by kind, if LiteLLM's address omits it or a part of it.
_ENDINGS: Final = {"azure_openai": ("/openai/v1", "/openai"), "ollama": ("/v1",)}
# Fields of a request that become a target's parameters.
REQUEST_FIELDS: Final = frozenset(
    {
        *(*HINTS, *LENGTHS, "stop", "n", "logit_bias", "logprobs", "top_logprobs", "thinking"),
        *("response_format", "tools", "tool_choice", "modalities", "prediction"),
        *("dimensions", "encoding_format", "truncation"),
    }
)
# By key: the part of the provider or router for it, its name there, and the factor and summand
# of its number. Factor 0: a flag, not a number.
_Row = tuple[str, str, float, int]
_FACTS: Final[Mapping[str, _Row]] = {
    "supports_vision": ("models", "vision", 0, 0),
    "supports_function_calling": ("models", "tools", 0, 0),
    "supports_parallel_function_calling": ("models", "parallel_tools", 0, 0),
    "supports_response_schema": ("models", "json_schema", 0, 0),
    "supports_prompt_caching": ("models", "caching", 0, 0),
    "supports_reasoning": ("models", "reasoning", 0, 0),
    "supports_native_streaming": ("models", "stream", 0, 0),
    "max_input_tokens": ("models", "context_window", 1, 0),
    "timeout": ("models", "first_byte_timeout_s", 1, 0),
    "stream_timeout": ("models", "first_token_timeout_s", 1, 0),
    "input_cost_per_token": ("prices", "input_usd_per_mtok", 1e6, 0),
    "output_cost_per_token": ("prices", "output_usd_per_mtok", 1e6, 0),
    "cache_read_input_token_cost": ("prices", "cached_input_usd_per_mtok", 1e6, 0),
    "cache_creation_input_token_cost": ("prices", "cache_write_usd_per_mtok", 1e6, 0),
}
_TOTAL: Final = "total_timeout_s"
_BOTH_PRICES: Final = ("input_cost_per_token", "output_cost_per_token")
_SETTINGS: Final[Mapping[str, _Row]] = {
    **dict.fromkeys(("num_retries", "max_retries"), ("retry", "tries_per_target", 1, 1)),
    **dict.fromkeys(("request_timeout", "timeout"), ("", _TOTAL, 1, 0)),
    "stream_timeout": ("", "first_token_timeout_s", 1, 0),
    "allowed_fails": ("breaker", "failures", 1, 1),
    "cooldown_time": ("breaker", "open_s", 1, 0),
    "health_check_interval": ("", "health_check_interval_s", 1, 0),
}
_CHAINS: Final = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
_KEY: Final = "`swapgate key create --help`"
_REASONS: Final[Mapping[str, str]] = {
    key: reason
    for keys, reason in (
        (
            "include",
            "Swapgate reads one file: first put the keys of the included files into it",
        ),
        ("environment_variables", "Swapgate copies no values: set them, or put them into .env"),
        ("credential_list", "write the credential's api_base and api_key into the deployment"),
        ("extra_body", "it may hold a secret: write it into the target's parameters"),
        ("headers extra_headers", "it may hold a secret: write it into the provider's own"),
        (
            "optional_pre_call_checks",
            "a canary keeps a caller on one model: clients send the header x-swapgate-sticky",
        ),
        ("routing_strategy", "a new model gets a share by `swapgate proposal create`"),
        ("weight order", "it only determines the order of the chain: see its model_name"),
        ("silent_model", "`swapgate shadow start {} PROVIDER/MODEL --reason TEXT` mirrors"),
        ("rpm tpm max_budget budget_duration", f"limits belong to client keys: {_KEY}"),
        ("master_key", f"Swapgate copies no keys: {_KEY} creates new keys"),
        ("cache cache_params", "Swapgate caches no answers"),
        ("alerting alert_types", "list the receivers in alerts.sinks"),
        (
            "callbacks success_callback failure_callback",
            "set router.tracing.otlp_endpoint, or read the router's /metrics",
        ),
        ("drop_params", "the router omits unsupported fields, and its response reports this"),
    )
    for key in keys.split()
}
# order, weight below zero, place in the list, PROVIDER/MODEL, and the entry of the chain
_Deployment = tuple[float, float, int, str, object]


def convert_litellm(source: SourceConfig) -> Conversion:
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
        self._router: dict[str, Any] = {}

    def convert(self) -> Conversion:
        source = self._source
        for key in _REASONS.keys() & source.values.keys():
            source.leave((key,), _REASONS[key])
        source.read_each(("model_list",), self._read_deployment)
        self._make_routes()
        chains = dict.fromkeys(_CHAINS, lambda path: source.read_each(path, self._extend))
        for key, reader in {"model_group_alias": self._read_alias, **chains}.items():
            for section in SECTIONS:
                source.read_each((section, key), reader)
        for section in SECTIONS:
            source.read_each((section,), self._read_setting)
        # The longest pattern comes first, because the router uses the first match.
        names = sorted(self._names.items(), key=lambda name: -len(name[0]))
        if aliases := {name: route for name, route in names if name != route}:
            self._router["aliases"] = aliases
        parts = {"router": self._router, "providers": self._providers, "routes": self._routes}
        config = {"home": ".swapgate", **{key: part for key, part in parts.items() if part}}
        return Conversion(config, tuple(source.notes()), tuple(self._variables))

    def _read_deployment(self, path: ConfigPath) -> None:
        source, where = self._source, (*path, "litellm_params")
        name, given = source.text((*path, "model_name")), source.value(where)
        mode = source.value((*path, "model_info", "mode")) or "chat"
        if mode not in ("chat", "completion", "embedding", "responses"):
            raise InputError(f"Swapgate serves chats and embeddings, no {mode!s:.40}")
        if not isinstance(given, Mapping) or "litellm_credential_name" in given:
            raise InputError(_REASONS["credential_list"])
        vendor, model = _provider_and_model(
            source.text((*where, "model"), "no model"),
            source.text((*where, "custom_llm_provider"), ""),
        )
        facts = self._read_facts(path, name)
        if mode == "embedding":
            facts.setdefault("models", {})["chat"] = False
        order, weight = (source.number((*where, key), 0) for key in ("order", "weight"))
        provider = self._add_provider(where, vendor)
        if "*" in model:
            source.leave(path, "")
            text = (
                f"providers.{provider}. A route's name is not a pattern: give each model "
                f"a route, `swapgate route create NAME --incumbent {provider}/MODEL --suite "
                "tickets`"
            )
            source.take(path, text, changed=True)
            return
        parameters = facts.pop("parameters", {})
        for part, values in facts.items():
            self._providers[provider].setdefault(part, {}).setdefault(model, {}).update(values)
        target = f"{provider}/{model}"
        source.take((*where, "model"), f"target {target}")
        entry = {"target": target, "parameters": parameters} if parameters else target
        found = (order, -weight, int(path[-1]), target, entry)
        self._groups.setdefault(name, []).append(found)

    def _read_facts(self, path: ConfigPath, name: str) -> dict[str, dict[str, object]]:
        """Returns a deployment's parameters, and its data about the model and prices."""
        source, facts = self._source, dict[str, dict[str, object]]()

        def read(place: ConfigPath) -> None:
            key, request = f"{place[-1]}", place[-2] == "litellm_params"
            if request and key in _REASONS:
                raise InputError(_REASONS[key].format(spell_route_name(name)))
            if request and key in REQUEST_FIELDS:
                facts.setdefault("parameters", {})[key] = source.public(place)
                source.take(place, f"the target's parameters.{key}")
            elif row := _FACTS.get(key):
                siblings = [source.value((*place[:-1], other)) for other in _BOTH_PRICES]
                if row[0] == "prices" and None in siblings:
                    raise InputError("Swapgate needs both prices: for input and for output")
                self._put(facts, row, place)

        for section in ("model_info", "litellm_params"):
            source.read_each((*path, section), read)
        return facts

    def _put(self, into: dict[str, Any], row: _Row, path: ConfigPath) -> None:
        part, name, factor, summand = row
        value = self._source.value(path)
        if not factor and not isinstance(value, bool):
            raise InputError("is neither true nor false")
        if factor:
            value = round(self._source.number(path) * factor + summand, 9)
        if factor == 1 and value <= 0:
            raise InputError("is not above 0")
        if name == "open_s" and value > DEFAULT_BREAKER.open_max_s:
            raise InputError("is longer than router.breaker.open_max_s: set both")
        (into.setdefault(part, {}) if part else into)[name] = value
        text = f"{part}{'.' if part else ''}{name}: {value}"
        self._source.take(path, text, changed=path[0] != "model_list")

    def _add_provider(self, path: ConfigPath, vendor: str) -> str:
        kind, base, variable = self._read_provider(path, vendor)
        key, source = (*path, "api_key"), self._source
        clear = bool(source.value(key)) and not source.variable(key)
        variable = source.variable(key) or variable
        identity = (vendor, kind, base, source.text(key) if clear else variable)
        if not (name := self._known.get(identity, "")):
            number = sum(known[0] == vendor for known in self._known) + 1
            stem = vendor if vendor == kind else vendor.replace("_", "-")
            name = self._known[identity] = stem if number == 1 else f"{stem}-{number}"
            if clear:
                variable = f"SWAPGATE_{name.replace('-', '_').upper()}_API_KEY"
            entry = {"kind": kind, "api_base": base, "api_key_env": variable}
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
        """Returns our kind, the address if it differs from the kind's, and the key's usual
        variable.
        """
        if vendor not in _VENDORS:
            hint = did_you_mean(vendor, _VENDORS)
            raise InputError(f"Swapgate has no provider {vendor!r}{hint}")
        kind = _KINDS.get(vendor, "custom")
        place, variable = _PLACES.get(vendor, ("", PROVIDER_KINDS[kind].key_env))
        own = PROVIDER_KINDS[kind].api_base
        base = self._read_address(path, kind) or place
        if own and base.removesuffix("/v1") == own.removesuffix("/v1"):
            base = ""
        elif base and kind == "openai":
            kind, variable = "custom", ""  # another server that speaks its protocol
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
        """Yields the keys that the address comes from."""
        whole = any(self._source.value((*path, key)) for key in _PARTS["BASE"])
        example = "BASE" if whole else api_base_rules.api_base_example(kind)
        return (key for part, keys in _PARTS.items() if part in example for key in keys)

    def _make_routes(self) -> None:
        """Creates a route for each group; names that are invalid for a route become aliases."""
        plain = {name: _plain(name, group[0][3]) for name, group in self._groups.items()}
        for name in sorted(plain, key=lambda name: plain[name] != name):
            route = plain[name]
            while route in self._routes:
                route += "-2"
            self._names[name] = route
            renamed = "" if route == name else f" Clients send {name} as before: an alias."
            for rank, (*_, index, target, entry) in enumerate(sorted(self._groups[name])):
                text = f"route {route}: " + (
                    "a fallback. The incumbent takes all traffic; a new model gets a share by "
                    f"`swapgate proposal create {route} {target}`."
                    if rank
                    else "its incumbent."
                )
                path = ("model_list", index, "model_name")
                self._source.take(path, text + renamed, changed=bool(rank or renamed))
                self._add(route, entry)

    def _add(self, route: str, entry: object) -> None:
        chain = self._routes.setdefault(route, {"incumbent": entry})
        if entry not in (chain["incumbent"], *chain.get("fallbacks", ())):
            chain.setdefault("fallbacks", []).append(entry)

    def _read_alias(self, path: ConfigPath) -> None:
        alias, value = f"{path[-1]}", self._source.value(path)
        route = self._find(value.get("model") if isinstance(value, Mapping) else value)
        if alias in self._names or alias in self._routes:
            raise InputError(f"there is a route {alias!r} already")
        self._names[alias] = route
        lost = sorted(map(str, value.keys() - {"model"})) if isinstance(value, Mapping) else ()
        text = f", without {', '.join(lost)}: not taken over" if lost else ""
        self._source.take(path, f"router.aliases: route {route}{text}", changed=bool(lost))

    def _find(self, name: object) -> str:
        if not isinstance(name, str) or name not in self._names:
            raise InputError(f"there is no route {name!r}: it was not converted")
        return self._names[name]

    def _extend(self, path: ConfigPath) -> None:
        every = path[-1] in ("*", "default_fallbacks")
        routes = tuple(self._routes) if every else (self._find(path[-1]),)
        if not isinstance(entries := self._source.value(path), list):
            raise InputError("is not a list of names")
        lost: list[str] = []
        for entry in entries:
            parts = entry if isinstance(entry, Mapping) else {"model": entry}
            lost += sorted(map(str, parts.keys() - {"model"}))
            model = f"{parts.get('model')}"
            other = self._names.get(model, "")
            lost += [] if other else [model]
            for route in routes:
                if other and route != other:
                    self._add(route, self._routes[other]["incumbent"])
        if path[1] == "content_policy_fallbacks":
            for route in routes:
                self._routes[route]["on_content_policy"] = "fallback"
        text = f"fallbacks of {'every route' if every else routes[0]}"
        text += f", without {', '.join(lost)}: not converted" if lost else ""
        self._source.take(path, text, changed=bool(lost))

    def _read_setting(self, path: ConfigPath) -> None:
        if (key := f"{path[-1]}") in _REASONS:
            raise InputError(_REASONS[key])
        if key == "default_fallbacks":
            self._extend(path)
        elif row := _SETTINGS.get(key):
            self._put(self._router, row, path)
            # A route's own limit applies too, and `route show` prints it.
            for route in self._routes.values() if row[1] == _TOTAL else ():
                route[_TOTAL] = self._router[_TOTAL]


def _plain(name: str, target: str) -> str:
    """Returns a route's name for a model's name; for a pattern, the target's model."""
    plain = spell_route_name(name.replace("*", "")).strip("-")
    return plain or spell_route_name(target.partition("/")[2])


def _provider_and_model(whole: str, vendor: str) -> tuple[str, str]:
    prefix, slash, rest = whole.partition("/")
    if vendor:
        return vendor, rest if slash and prefix == vendor else whole
    if slash and prefix in _VENDORS:
        # LiteLLM may put the name of an interface before the model's name.
        return prefix, rest.removeprefix("converse/").removeprefix("responses/")
    for kind in ("openai", "anthropic"):
        if whole.startswith(PROVIDER_KINDS[kind].keywords):
            return kind, whole
    if whole == "*":
        raise InputError("`*` names no provider: give each model its own entry")
    hint = did_you_mean(prefix, _VENDORS) if slash else ""
    raise InputError(
        f"Swapgate does not know the provider of {whole!r}{hint}. If it uses OpenAI's "
        "protocol, add a provider of kind custom with its api_base"
    )
