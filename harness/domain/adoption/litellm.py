"""LiteLLM's proxy configuration (`config.yaml`) becomes Swapgate's: each model name a route,
its deployments and fallbacks the route's chain.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from harness.domain.adoption.conversion import (
    ENVIRONMENT_MARK,
    ConfigPath,
    Conversion,
    ConversionReport,
    SourceConfig,
    as_number,
    as_text,
    named_variable,
)
from harness.domain.errors import InputError
from harness.domain.privacy.redaction import find_keys
from harness.domain.providers.api_base_rules import check_api_base, check_api_base_path
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.reliability.breaker import DEFAULT_BREAKER
from harness.domain.routing.route_changes import check_route_name, spell_route_name
from harness.domain.suggestions import did_you_mean

SECTIONS: Final = ("litellm_settings", "router_settings", "general_settings")
# LiteLLM's name of a provider → our kind. An address follows where the kind has none.
_KINDS: Final[Mapping[str, str]] = {
    **{kind: kind for kind in ("openai", "anthropic", "gemini", "bedrock", "groq", "deepseek")},
    **{kind: kind for kind in ("mistral", "openrouter", "ollama", "lm_studio", "vllm")},
    "azure": "azure_openai",
    "vertex_ai": "vertex",
    "ollama_chat": "ollama",
    "hosted_vllm": "vllm",
    "bedrock_converse": "bedrock",
    **dict.fromkeys(("litellm_proxy", "openai_like", "custom_openai", "azure_ai"), "custom"),
}
# Providers that speak OpenAI's protocol: the address, and the usual variable of the key.
_PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "xai": ("https://api.x.ai/v1", "XAI_API_KEY"),
    "zai": ("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
    "cerebras": ("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "dashscope": (
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
    ),
    "deepinfra": ("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "sambanova": ("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "perplexity": ("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY"),
    "moonshot": ("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "together_ai": ("https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    "fireworks_ai": ("https://api.fireworks.ai/inference/v1", "FIREWORKS_AI_API_KEY"),
    "nvidia_nim": ("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
}
_PROVIDERS: Final = (*_KINDS, *_PLACES)
# Fields of a request, which are a target's parameters here.
REQUEST_FIELDS: Final = frozenset(
    {
        *("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop"),
        *("seed", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "n"),
        *("top_logprobs", "response_format", "reasoning_effort", "verbosity", "thinking"),
        *("service_tier", "user", "tools", "tool_choice", "parallel_tool_calls", "store"),
        *("modalities", "dimensions", "encoding_format", "truncation", "prediction"),
    }
)
_ADDRESS_PARTS: Final = (
    *("api_base", "base_url", "custom_llm_provider", "region_name", "aws_region_name"),
    *("vertex_project", "vertex_location"),
)
_ABILITIES: Final[Mapping[str, str]] = {
    "supports_vision": "vision",
    "supports_function_calling": "tools",
    "supports_parallel_function_calling": "parallel_tools",
    "supports_response_schema": "json_schema",
    "supports_prompt_caching": "caching",
    "supports_reasoning": "reasoning",
    "supports_native_streaming": "stream",
}
_PRICES: Final[Mapping[str, str]] = {
    "input_cost_per_token": "input_usd_per_mtok",
    "output_cost_per_token": "output_usd_per_mtok",
    "cache_read_input_token_cost": "cached_input_usd_per_mtok",
}
_LIMITS: Final[Mapping[str, str]] = {
    "max_input_tokens": "context_window",
    "timeout": "first_byte_timeout_s",
    "stream_timeout": "first_token_timeout_s",
}
# A setting of the proxy → a setting below `router`, and the difference between the numbers.
_SETTINGS: Final[Mapping[str, tuple[str, str, int]]] = {
    **dict.fromkeys(("num_retries", "max_retries"), ("retry", "tries_per_target", 1)),
    **dict.fromkeys(("request_timeout", "timeout"), ("", "total_timeout_s", 0)),
    "stream_timeout": ("", "first_token_timeout_s", 0),
    "allowed_fails": ("breaker", "failures", 1),
    "cooldown_time": ("breaker", "open_s", 0),
}
_CHAINS: Final = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
_REASONS: Final[Mapping[str, str]] = {
    "include": "Swapgate reads one file: put the keys of those files into it, and import again",
    "environment_variables": "their values are not copied: set them, or write them into .env",
    "extra_body": "it may hold a secret: write it into the target's parameters",
    "optional_pre_call_checks": (
        "a caller stays with one model while a canary runs: clients name the caller in the "
        "header x-swapgate-sticky"
    ),
    "weight": "the order of the chain alone: see its model_name",
    "order": "the order of the chain alone: see its model_name",
    "silent_model": (
        "mirror requests by `swapgate shadow start {name} PROVIDER/MODEL --reason TEXT`"
    ),
    "headers": "a header may be a secret: write it into the provider's extra_headers",
    "extra_headers": "a header may be a secret: write it into the provider's extra_headers",
    "rpm": "limits belong to client keys: `swapgate key create --help`",
    "tpm": "limits belong to client keys: `swapgate key create --help`",
    "master_key": "a key is never copied: `swapgate key create --help` makes new ones",
}


@dataclass(frozen=True, slots=True)
class _Deployment:
    """One entry of the model list."""

    order: float
    weight: float
    index: int
    target: str  # PROVIDER/MODEL
    entry: object  # as the configuration file writes the target


@dataclass(frozen=True, slots=True)
class _Route:
    """A route with its chain of targets; the first is the incumbent."""

    name: str
    chain: list[object]
    settings: dict[str, object]

    def add(self, entry: object) -> None:
        if entry not in self.chain:  # no target stands twice in a chain
            self.chain.append(entry)


def convert_litellm(source: SourceConfig) -> Conversion:
    """Converts a proxy's configuration, and reports what became of each of its keys."""
    return _Converter(source).convert()


class _Converter:
    """Holds what was taken over so far."""

    def __init__(self, source: SourceConfig) -> None:
        self._source = source
        self._report = ConversionReport(source)
        self._variables: dict[str, None] = {}
        self._providers: dict[str, dict[str, object]] = {}
        self._known: dict[tuple[object, ...], str] = {}
        self._routes: dict[str, _Route] = {}  # by LiteLLM's name
        self._router: dict[str, object] = {}

    def convert(self) -> Conversion:
        for key in _REASONS.keys() & self._source.values.keys():
            self._report.leave((key,), _REASONS[key])
        groups = self._read_models()
        self._name_routes(groups)
        for section in SECTIONS:
            self._read_aliases(section)
        for section in SECTIONS:
            self._read_fallbacks(section)
        for section in SECTIONS:
            self._read_settings(section)
        routes = {route.name: _route_entry(route) for route in self._routes.values()}
        parts = {"router": self._router, "providers": self._providers, "routes": routes}
        config = {"home": ".swapgate", **{key: part for key, part in parts.items() if part}}
        return Conversion(config, self._report.notes(), tuple(self._variables))

    @contextmanager
    def _reported(self, path: ConfigPath) -> Iterator[None]:
        """Leaves the key behind when its reader refuses it."""
        try:
            yield
        except InputError as error:
            self._report.leave(path, f"{error}")

    def _read_models(self) -> dict[str, list[_Deployment]]:
        groups: dict[str, list[_Deployment]] = {}
        with self._reported(("model_list",)):
            for index in range(len(self._source.items(("model_list",)))):
                with self._reported(("model_list", index)):
                    entry = self._source.mapping(("model_list", index))
                    name = as_text(entry.get("model_name"))
                    if deployment := self._read_deployment(index, name):
                        groups.setdefault(name, []).append(deployment)
        return {name: sorted(group, key=_preference) for name, group in groups.items()}

    def _read_deployment(self, index: int, name: str) -> _Deployment | None:
        """Returns the deployment; None for a pattern, which becomes a provider alone."""
        path: ConfigPath = ("model_list", index, "litellm_params")
        given = dict(self._source.mapping(path))
        mode = self._source.mapping(("model_list", index, "model_info")).get("mode", "chat")
        if mode not in {"chat", "completion", "embedding", "responses"}:
            raise InputError(f"Swapgate serves chats and embeddings, no {mode!s:.40}")
        if "litellm_credential_name" in given:
            raise InputError("write the credential's api_base and api_key into the deployment")
        vendor, model = _provider_and_model(given)
        pattern = "*" in name or "*" in model
        if not pattern:
            check_route_name(spell_route_name(name))
        parameters = self._read_parameters(path, given)
        facts, prices = self._read_facts(index)
        order, weight = (as_number(given.get(key, 0)) for key in ("order", "weight"))
        provider = self._add_provider(path, vendor, given)
        if pattern:
            self._report.leave(("model_list", index), "")
            self._report.change(
                ("model_list", index),
                f"providers.{provider}. A route has one name, and no pattern: give each model "
                f"a route, `swapgate route create NAME --incumbent {provider}/MODEL --suite "
                "tickets`",
            )
            return None
        for section, values in (("models", facts), ("prices", prices)):
            known = self._providers[provider].setdefault(section, {}) if values else None
            if isinstance(known, dict):
                known[model] = {**known.get(model, {}), **values}
        target = f"{provider}/{model}"
        entry = {"target": target, "parameters": parameters} if parameters else target
        self._report.take((*path, "model"), f"target {target}")
        for key in _REASONS.keys() & given.keys():
            self._report.leave((*path, key), _REASONS[key].format(name=spell_route_name(name)))
        return _Deployment(order, weight, index, target, entry)

    def _add_provider(self, path: ConfigPath, vendor: str, given: Mapping[str, object]) -> str:
        """Adds a provider, or finds the equal one; returns its name."""
        kind, base, variable = self._read_provider(vendor, given)
        key = given.get("api_key")
        clear = key is not None and not (variable := named_variable(key))
        identity = (vendor, kind, base, as_text(key) if clear else variable)
        if not (name := self._known.get(identity, "")):
            number = sum(known[0] == vendor for known in self._known) + 1
            stem = vendor if vendor == kind else vendor.replace("_", "-")
            name = self._known[identity] = stem if number == 1 else f"{stem}-{number}"
            if clear:
                variable = f"SWAPGATE_{name.replace('-', '_').upper()}_API_KEY"
            entry = {"kind": kind, "api_base": base, "api_key_env": variable}
            self._providers[name] = {field: text for field, text in entry.items() if text}
            self._variables |= {variable: None} if variable else {}
        for part in _ADDRESS_PARTS:
            self._report.take((*path, part), f"providers.{name}: kind and api_base")
        variable = f"{self._providers[name].get('api_key_env')}"
        if clear:
            text = f"the key stands in clear and is not copied: set {variable} to a new one"
            self._report.change((*path, "api_key"), text)
        else:
            self._report.take((*path, "api_key"), f"providers.{name}.api_key_env: {variable}")
        return name

    def _read_provider(self, vendor: str, given: Mapping[str, object]) -> tuple[str, str, str]:
        """Our kind, the address if it is not the kind's own, and the key's usual variable."""
        if vendor not in _PROVIDERS:
            hint = did_you_mean(vendor, _PROVIDERS)
            raise InputError(f"Swapgate has no provider {vendor!r}{hint}")
        kind = _KINDS.get(vendor, "custom")
        place, variable = _PLACES.get(vendor, ("", PROVIDER_KINDS[kind].key_env))
        own = PROVIDER_KINDS[kind].api_base
        base = self._read_address(kind, given) or place
        if own and base.removesuffix("/v1") == own.removesuffix("/v1"):
            base = ""
        elif base and kind == "openai":
            kind, variable = "custom", ""  # another server that speaks its protocol
        check_api_base_path(kind, base or own)
        check_api_base(base or own)
        return kind, base, variable

    def _read_address(self, kind: str, given: Mapping[str, object]) -> str:
        """The address that a deployment names; empty for the usual one of its provider."""

        def text(*keys: str) -> str:
            value = next((given[key] for key in keys if given.get(key)), None)
            return as_text(self._source.resolve(value)) if value else ""

        address = text("api_base", "base_url").rstrip("/")
        region = text("aws_region_name", "region_name")
        project, location = text("vertex_project"), text("vertex_location")
        if kind == "bedrock" and not address:
            if not region:
                raise InputError("needs `aws_region_name`: Bedrock is called in a region")
            return f"https://bedrock-runtime.{region}.amazonaws.com"
        if kind == "vertex" and not address:
            if not (project and location):
                raise InputError("needs `vertex_project` and `vertex_location`")
            host = "" if location == "global" else f"{location}-"
            return (
                f"https://{host}aiplatform.googleapis.com/v1/projects/{project}"
                f"/locations/{location}/publishers/google"
            )
        if kind == "azure_openai" and address:
            # Azure's v1 API needs no version.
            plain = address.removesuffix("/openai/v1").removesuffix("/openai")
            return f"{plain}/openai/v1"
        if kind == "ollama" and address:
            return f"{address.removesuffix('/v1')}/v1"
        return address

    def _read_parameters(
        self, path: ConfigPath, given: Mapping[str, object]
    ) -> dict[str, object]:
        taken = {}
        for key in sorted(REQUEST_FIELDS & given.keys()):
            text = str(given[key])
            if ENVIRONMENT_MARK in text or any(True for _ in find_keys(text)):
                self._report.leave((*path, key), "it may be a secret, which is never copied")
            else:
                taken[key] = given[key]
                self._report.take((*path, key), f"the target's parameters.{key}")
        return taken

    def _read_facts(self, index: int) -> tuple[dict[str, object], dict[str, object]]:
        """Abilities with time limits, and prices, of a deployment's model."""
        facts: dict[str, object] = {}
        prices: dict[str, object] = {}
        priced: list[ConfigPath] = []
        for section in ("model_info", "litellm_params"):
            where: ConfigPath = ("model_list", index, section)
            for key, value in self._source.mapping(where).items():
                if key in _ABILITIES and isinstance(value, bool):
                    facts[_ABILITIES[key]] = value
                elif key in _LIMITS:
                    facts[_LIMITS[key]] = as_number(self._source.resolve(value))
                elif key in _PRICES:
                    price = as_number(self._source.resolve(value))
                    priced.append((*where, key))
                    prices[_PRICES[key]] = round(price * 1e6, 9)
                elif key == "mode":
                    facts |= {"chat": False} if value == "embedding" else {}
                else:
                    continue
                self._report.take((*where, key), "the provider's models and prices")
        if {"input_usd_per_mtok", "output_usd_per_mtok"} <= prices.keys():
            return facts, prices
        for path in priced:
            self._report.leave(path, "a price here needs both the input's and the output's")
        return facts, {}

    def _name_routes(self, groups: Mapping[str, Sequence[_Deployment]]) -> None:
        """Makes a route of each group. A name with a slash is renamed, after all others."""
        for name in sorted(groups, key=lambda name: "/" in name):
            route = self._routes[name] = _Route(self._free_name(name), [], {})
            renamed = "" if route.name == name else f" Clients send {route.name}, not {name}"
            for rank, member in enumerate(groups[name]):
                path: ConfigPath = ("model_list", member.index, "model_name")
                route.add(member.entry)
                if rank == 0:
                    note = self._report.change if renamed else self._report.take
                    note(path, f"route {route.name}: its incumbent.{renamed}")
                    continue
                self._report.change(
                    path,
                    f"route {route.name}: a fallback. The incumbent takes all traffic; a new "
                    f"model gets a share by `swapgate proposal create {route.name} "
                    f"{member.target}`.{renamed}",
                )

    def _free_name(self, name: str) -> str:
        """A route's name that is free. Raises InputError for one that no route may have."""
        taken, free = {route.name for route in self._routes.values()}, spell_route_name(name)
        check_route_name(free)
        if free in taken and free == name:
            raise InputError(f"there is a route {name!r} already")
        while free in taken:
            free += "-2"
        return free

    def _read_aliases(self, section: str) -> None:
        """Makes a route of each alias, which shares the chain of the route that it names."""
        path = (section, "model_group_alias")
        with self._reported(path):
            for alias, value in self._source.mapping(path).items():
                with self._reported((*path, alias)):
                    original = self._find(value)
                    route = replace(original, name=self._free_name(alias))
                    self._routes[alias] = route
                    text = f"route {route.name}, with the targets of {original.name}"
                    self._report.take((*path, alias), text)

    def _find(self, value: object) -> _Route:
        name = value.get("model") if isinstance(value, Mapping) else value
        if not isinstance(name, str) or name not in self._routes:
            raise InputError(f"there is no route {name!r}: it was not taken over")
        return self._routes[name]

    def _read_fallbacks(self, section: str) -> None:
        for key in _CHAINS:
            with self._reported((section, key)):
                for index in range(len(self._source.items((section, key)))):
                    path: ConfigPath = (section, key, index)
                    with self._reported(path):
                        for name in self._source.mapping(path):
                            with self._reported((*path, name)):
                                self._extend((*path, name), name)
        with self._reported((section, "default_fallbacks")):
            if self._source.items((section, "default_fallbacks")):
                self._extend((section, "default_fallbacks"), "*")

    def _extend(self, path: ConfigPath, name: str) -> None:
        """Puts the incumbents of other routes behind the chain of `name`."""
        routes = list(self._routes.values()) if name == "*" else [self._find(name)]
        missing, extras = [], []
        for entry in self._source.items(path):
            extras += sorted(entry.keys() - {"model"}) if isinstance(entry, Mapping) else []
            try:
                other = self._find(entry)
            except InputError:
                model = entry.get("model") if isinstance(entry, Mapping) else entry
                missing.append(model if isinstance(model, str) else "something that is no name")
                continue
            for route in routes:
                if route is not other:
                    route.add(other.chain[0])
        if path[1] == "content_policy_fallbacks":
            for route in routes:
                route.settings["on_content_policy"] = "fallback"
        text = f"fallbacks of {'every route' if name == '*' else routes[0].name}"
        if lost := [*missing, *map(str, extras)]:
            self._report.change(path, f"{text}, without {', '.join(lost)}: not taken over")
        else:
            self._report.take(path, text)

    def _read_settings(self, section: str) -> None:
        with self._reported((section,)):
            for key, value in self._source.mapping((section,)).items():
                with self._reported((section, key)):
                    if key in _REASONS:
                        raise InputError(_REASONS[key])
                    if key in _SETTINGS:
                        text = self._set(key, as_number(self._source.resolve(value)))
                        self._report.change((section, key), f"router.{text}")

    def _set(self, key: str, value: float) -> str:
        """Sets the router's setting for one of the proxy's; returns what it set."""
        part, name, more = _SETTINGS[key]
        number = value + more
        if number <= 0:
            raise InputError("is not above 0")
        if name == "open_s" and number > DEFAULT_BREAKER.open_max_s:
            raise InputError("is longer than router.breaker.open_max_s: write both")
        place = self._router.setdefault(part, {}) if part else self._router
        if isinstance(place, dict):
            place[name] = number
        return f"{part}{'.' if part else ''}{name}: {number:g}"


def _preference(deployment: _Deployment) -> tuple[float, float, int]:
    return deployment.order, -deployment.weight, deployment.index


def _route_entry(route: _Route) -> dict[str, object]:
    rest = {"fallbacks": list(route.chain[1:])} if route.chain[1:] else {}
    return {"incumbent": route.chain[0], **rest, **route.settings}


def _provider_and_model(given: Mapping[str, object]) -> tuple[str, str]:
    """LiteLLM's name of the provider, and the model there. Raises InputError."""
    whole = as_text(given.get("model") or "no model")
    prefix, slash, rest = whole.partition("/")
    if vendor := given.get("custom_llm_provider"):
        return as_text(vendor), rest if slash and prefix == vendor else whole
    if slash and prefix in _PROVIDERS:
        # LiteLLM names one of several interfaces to a model before it.
        return prefix, rest.removeprefix("converse/").removeprefix("responses/")
    for kind in ("openai", "anthropic"):
        if whole.startswith(PROVIDER_KINDS[kind].keywords):
            return kind, whole
    if whole == "*":
        raise InputError("`*` names no provider: give each model an entry of its own")
    hint = did_you_mean(prefix, _PROVIDERS) if slash else ""
    raise InputError(
        f"Swapgate does not know where {whole!r} is served{hint}. If it speaks OpenAI's "
        "protocol, add a provider of kind custom with its api_base"
    )
