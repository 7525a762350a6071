"""A deployment of LiteLLM's `model_list` becomes a provider and a target of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from harness.domain.adoption.config_builder import ConfigDraft, ProviderSource, TargetDraft
from harness.domain.adoption.conversion import (
    ConfigPath,
    ConversionReport,
    SourceConfig,
    as_number,
    as_text,
    may_be_secret,
    named_variable,
)
from harness.domain.adoption.litellm_parameters import ADDRESS_PARTS, REQUEST_FIELDS
from harness.domain.adoption.litellm_patterns import WILDCARD
from harness.domain.adoption.provider_names import (
    LITELLM_PROVIDERS,
    azure_base,
    bedrock_base,
    vertex_base,
)
from harness.domain.errors import InputError
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.suggestions import did_you_mean

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
_MODES: Final = ("chat", "completion", "embedding", "responses")


@dataclass(frozen=True, slots=True)
class _Deployment:
    """One entry of the model list while it is read."""

    path: ConfigPath  # of its parameters
    info_path: ConfigPath
    parameters: Mapping[str, object]
    info: Mapping[str, object]


def convert_deployment(
    index: int,
    source: SourceConfig,
    credentials: Mapping[str, tuple[ConfigPath, Mapping[str, object]]],
    draft: ConfigDraft,
    report: ConversionReport,
    *,
    model: str = "",
) -> TargetDraft:
    """Reads one entry of the model list; `model` stands for the entry's own where that is a
    pattern. Raises InputError for an entry that has no like here.
    """
    deployment = _read_deployment(index, source)
    path = deployment.path
    name, model = _provider_and_model(deployment, model)
    provider = _read_provider(name, deployment, source, credentials, report)
    parameters = _read_parameters(deployment, report)
    known = draft.add_provider(provider)
    report.take((*path, "model"), f"target {known}/{model}")
    _note_key(known, provider, deployment, draft, report)
    _describe_model(known, model, deployment, source, draft, report)
    return TargetDraft(known, model, parameters)


def convert_provider(
    index: int,
    source: SourceConfig,
    credentials: Mapping[str, tuple[ConfigPath, Mapping[str, object]]],
    draft: ConfigDraft,
    report: ConversionReport,
) -> str:
    """Adds the provider of an entry whose models are a pattern, and returns its name. Raises
    InputError for an entry that has no like here.
    """
    deployment = _read_deployment(index, source)
    whole = as_text(deployment.parameters.get("model") or "no model")
    name, _ = _provider_and_model(deployment, whole.replace(WILDCARD, "MODEL"))
    provider = _read_provider(name, deployment, source, credentials, report)
    known = draft.add_provider(provider)
    _note_key(known, provider, deployment, draft, report)
    return known


def _read_deployment(index: int, source: SourceConfig) -> _Deployment:
    where: ConfigPath = ("model_list", index)
    path, info_path = (*where, "litellm_params"), (*where, "model_info")
    deployment = _Deployment(path, info_path, source.mapping(path), source.mapping(info_path))
    mode = deployment.info.get("mode", "chat")
    if mode not in _MODES:
        raise InputError(f"Swapgate serves chats and embeddings, no {mode!s:.40}")
    return deployment


def _provider_and_model(deployment: _Deployment, model: str = "") -> tuple[str, str]:
    """LiteLLM's name of the provider, and the model there. Raises InputError."""
    whole = model or as_text(deployment.parameters.get("model") or "no model")
    if WILDCARD in whole:
        raise InputError("a route serves one model, no pattern: name the models one by one")
    given = deployment.parameters.get("custom_llm_provider")
    prefix, slash, rest = whole.partition("/")
    if given:
        return as_text(given), rest if slash and prefix == given else whole
    if slash and prefix in LITELLM_PROVIDERS:
        # What is before the model names one of several interfaces to the same one.
        return prefix, rest.removeprefix("converse/").removeprefix("responses/")
    kind = next(
        (
            kind.name
            for kind in PROVIDER_KINDS.values()
            if kind.name in {"openai", "anthropic"} and whole.startswith(kind.keywords)
        ),
        "",
    )
    if kind:
        return kind, whole
    hint = did_you_mean(prefix, LITELLM_PROVIDERS) if slash else ""
    raise InputError(
        f"Swapgate does not know where {whole!r} is served{hint}. If it speaks OpenAI's "
        "protocol, add a provider of kind custom with its api_base"
    )


def _read_provider(
    name: str,
    deployment: _Deployment,
    source: SourceConfig,
    credentials: Mapping[str, tuple[ConfigPath, Mapping[str, object]]],
    report: ConversionReport,
) -> ProviderSource:
    known = LITELLM_PROVIDERS.get(name)
    if known is None:
        hint = did_you_mean(name, LITELLM_PROVIDERS)
        raise InputError(f"Swapgate has no provider {name!r}{hint}")
    given = dict(deployment.parameters)
    stored = given.get("litellm_credential_name")
    if stored is not None:
        if not isinstance(stored, str) or stored not in credentials:
            raise InputError(f"`credential_list` has no {stored!r}")
        given = {**credentials[stored][1], **given}
        path = (*deployment.path, "litellm_credential_name")
        report.take(path, "the provider's address and key")
    kind, base = known.kind, _api_base(known.kind, given, source) or known.api_base
    own = PROVIDER_KINDS[kind].api_base
    if base and own and _same_place(base, own):
        base = ""
    elif base and kind == "openai":
        kind = "custom"  # another server that speaks its protocol
    for part in ADDRESS_PARTS & deployment.parameters.keys():
        report.take((*deployment.path, part), "the provider's kind and api_base")
    api_key = given.get("api_key")
    variable = named_variable(api_key)
    usual = known.key_env if kind != "custom" or not base or known.api_base else ""
    return ProviderSource(
        name.replace("_", "-") if name != kind else name,
        kind,
        base,
        key_env=usual if api_key is None else variable,
        key="" if variable or api_key is None else as_text(api_key),
        usual_key_env=usual,
        headers=_read_headers(deployment, report),
    )


def _api_base(kind: str, given: Mapping[str, object], source: SourceConfig) -> str:
    """Where the deployment says that it is; empty for its kind's own place. Raises
    InputError.
    """
    value = source.resolve(given.get("api_base") or given.get("base_url") or "")
    address = as_text(value) if value else ""
    region = source.resolve(given.get("aws_region_name") or given.get("region_name") or "")
    if kind == "bedrock" and not address:
        if not region:
            raise InputError("needs `aws_region_name`: Bedrock is called in a region")
        return bedrock_base(as_text(region))
    if kind == "vertex" and not address:
        project = source.resolve(given.get("vertex_project") or "")
        location = source.resolve(given.get("vertex_location") or "")
        if not (project and location):
            raise InputError("needs `vertex_project` and `vertex_location`")
        return vertex_base(as_text(project), as_text(location))
    if kind == "azure_openai" and address:
        return azure_base(address)
    if kind == "ollama" and address:
        return f"{address.rstrip('/').removesuffix('/v1')}/v1"
    return address


def _same_place(base: str, other: str) -> bool:
    return base.rstrip("/").removesuffix("/v1") == other.rstrip("/").removesuffix("/v1")


def _read_headers(
    deployment: _Deployment, report: ConversionReport
) -> tuple[tuple[str, str], ...]:
    """The extra headers that are safe to copy: no value that may be a secret is."""
    taken = []
    for field in ("extra_headers", "headers"):
        headers = deployment.parameters.get(field)
        if not isinstance(headers, Mapping):
            continue
        for name, value in headers.items():
            path = (*deployment.path, field, name)
            if not isinstance(value, str) or may_be_secret(name, value):
                report.leave(
                    path,
                    "it may be a secret, which is never copied: add it to the provider's "
                    "extra_headers",
                )
            else:
                report.take(path, "the provider's extra_headers")
                taken.append((name, value))
    return tuple(sorted(taken))


def _read_parameters(deployment: _Deployment, report: ConversionReport) -> dict[str, object]:
    taken: dict[str, object] = {}
    for key in sorted(REQUEST_FIELDS & deployment.parameters.keys()):
        _take_field(taken, (*deployment.path, key), key, deployment.parameters[key], report)
    extra = deployment.parameters.get("extra_body")
    if isinstance(extra, Mapping):
        for key, value in extra.items():
            _take_field(taken, (*deployment.path, "extra_body", key), str(key), value, report)
    return taken


def _take_field(
    taken: dict[str, object],
    path: ConfigPath,
    key: str,
    value: object,
    report: ConversionReport,
) -> None:
    if may_be_secret(key, value):
        report.leave(path, "it may be a secret, which is never copied")
    else:
        taken[key] = value
        report.take(path, f"the target's parameters.{key}")


def _note_key(
    name: str,
    provider: ProviderSource,
    deployment: _Deployment,
    draft: ConfigDraft,
    report: ConversionReport,
) -> None:
    variable = draft.provider_entry(name).get("api_key_env")
    if "api_key" not in deployment.parameters:
        return
    path = (*deployment.path, "api_key")
    if provider.key:
        report.change(
            path,
            f"the file has a key in clear, which is not copied: set {variable} to it, or to a "
            "new one",
        )
    else:
        report.take(path, f"providers.{name}.api_key_env: {variable}")


def _describe_model(
    provider: str,
    model: str,
    deployment: _Deployment,
    source: SourceConfig,
    draft: ConfigDraft,
    report: ConversionReport,
) -> None:
    """Prices, abilities and time limits of the model."""
    facts = {
        **{(*deployment.info_path, key): value for key, value in deployment.info.items()},
        **{(*deployment.path, key): value for key, value in deployment.parameters.items()},
    }
    prices: dict[str, float] = {}
    abilities: dict[str, object] = {}
    paths: list[ConfigPath] = []
    for path, value in facts.items():
        key = str(path[-1])
        if key in _PRICES:
            paths.append(path)
            prices[_PRICES[key]] = round(as_number(source.resolve(value)) * 1e6, 9)
        elif key in _ABILITIES and isinstance(value, bool):
            abilities[_ABILITIES[key]] = value
            report.take(path, f"providers.{provider}.models: {_ABILITIES[key]}")
        elif key == "max_input_tokens":
            abilities["context_window"] = as_number(value)
            report.take(path, f"providers.{provider}.models: context_window")
        elif key == "mode":
            if value == "embedding":
                abilities["chat"] = False
            report.take(path, f"providers.{provider}.models")
        elif key in {"timeout", "stream_timeout"} and path[: len(deployment.path)] == (
            deployment.path
        ):
            limit = "first_byte_timeout_s" if key == "timeout" else "first_token_timeout_s"
            abilities[limit] = as_number(source.resolve(value))
            report.change(path, f"providers.{provider}.models: {limit}, for one attempt")
    _take_prices(provider, model, prices, paths, draft, report)
    if abilities:
        draft.describe_model(provider, "models", model, abilities)


def _take_prices(
    provider: str,
    model: str,
    prices: Mapping[str, float],
    paths: list[ConfigPath],
    draft: ConfigDraft,
    report: ConversionReport,
) -> None:
    whole = {"input_usd_per_mtok", "output_usd_per_mtok"} <= prices.keys()
    if whole:
        draft.describe_model(provider, "prices", model, dict(prices))
    for path in paths:
        if whole:
            report.take(path, f"providers.{provider}.prices, per million tokens")
        else:
            report.leave(path, "a price here needs both the input's and the output's")
