"""The table of provider kinds. For a kind's `adapted` endpoints, the router translates
requests (`router.upstream`). For the endpoints that it `speaks`, it passes on the bytes.

A provider that speaks OpenAI's protocol needs one row here and nothing else. A row tells how to
call a kind. The fields that its models accept are in the table of abilities
(`models.abilities`), in the catalogue (`models.catalogue`) or in the provider's `models`. This
module calls no provider.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from harness.frame.errors import InputError
from harness.frame.suggestions import did_you_mean
from harness.providers.models.capabilities import (
    NATIVE,
    Capabilities,
    Endpoint,
)

CUSTOM_KIND: Final = "custom"  # any server of OpenAI's protocol
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_SHOWN: Final = 40


def check_provider_name(name: str) -> None:
    """Checks a provider's name, which precedes a slash or a colon. Raises InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:_SHOWN]!r} is not a provider name: use 1 to 63 of a-z, A-Z, 0-9, `-`, "
            "`_` and `.`, beginning with a letter or digit"
        )


class AnswerLimit(StrEnum):
    """The names of the field that limits an answer's tokens."""

    MAX_TOKENS = "max_tokens"
    MAX_COMPLETION_TOKENS = "max_completion_tokens"


class ProviderGroup(StrEnum):
    """Where a provider runs, and how it authenticates the caller."""

    HOSTED = "hosted"
    LOCAL = "local"
    OAUTH = "oauth"  # a person's account: used only if its name is given
    SIMULATED = "simulated"


class KeyStyle(StrEnum):
    """How a request carries a key: as a bearer token, or in the header of this name."""

    BEARER = "authorization"
    ANTHROPIC = "x-api-key"
    AZURE = "api-key"
    GOOGLE = "x-goog-api-key"


_CHAT: Final = frozenset({Endpoint.CHAT})
_CHAT_EMBED: Final = frozenset({Endpoint.CHAT, Endpoint.EMBEDDINGS})
_OPENAI_ENDPOINTS: Final = frozenset({Endpoint.CHAT, Endpoint.EMBEDDINGS, Endpoint.RESPONSES})
# Endpoints that the router can translate to chat (`router.protocols`).
_TRANSLATED_TO_CHAT: Final = frozenset({Endpoint.MESSAGES, Endpoint.RESPONSES})


@dataclass(frozen=True, slots=True)
class OwnServer:
    """Paths where a server that you run describes itself, outside its API (`/v1`).

    health: answers 200 once the model is loaded.
    about: describes the model; empty if the server's list of models has this data.
    window: the keys that lead to the context window in `about`. If they lead to a list, the
    model's row has the window.
    """

    health: str = "/health"
    about: str = ""
    window: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """The facts that all providers of a kind share.

    translated: endpoints that the router translates to the vendor's own protocol. `adapted`
    also contains endpoints that it translates to chat.
    catalogue_names: the vendor's names in litellm's table.
    """

    name: str
    group: ProviderGroup
    speaks: frozenset[Endpoint] = frozenset()
    # The usual address, including the API's version; empty if each provider has its own.
    api_base: str = ""
    key_env: str = ""  # environment variable that the vendor's own tools read
    keywords: tuple[str, ...] = ()  # beginnings of model names that belong to this kind
    key_style: KeyStyle = KeyStyle.BEARER
    needs_key: bool = True  # whether every request needs a key
    translated: frozenset[Endpoint] = frozenset()  # translated to the vendor's own protocol
    # The only name of an answer's limit that its chats accept; None if they accept both or we
    # do not know.
    answer_limit: AnswerLimit | None = None
    cache_marks: bool = False  # whether its chats accept `cache_control`
    catalogue_names: tuple[str, ...] = ()  # its names in the model catalogue
    # Headers that contain a claim of the token (JWT): by header, the claim's path.
    claim_headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    own_server: OwnServer | None = None

    @property
    def adapted(self) -> frozenset[Endpoint]:
        """The endpoints that the router translates for providers of this kind."""
        speaks_chat = Endpoint.CHAT in self.speaks | self.translated
        return self.translated | (
            _TRANSLATED_TO_CHAT - self.speaks if speaks_chat else frozenset()
        )

    @property
    def serves(self) -> frozenset[Endpoint]:
        """All endpoints of this kind, native and translated."""
        return self.speaks | self.adapted

    def translates(self, capabilities: Capabilities) -> frozenset[Endpoint]:
        """Returns the endpoints that the router translates for a model of this kind.

        Args:
            capabilities: the model's declared capabilities. `native` calls the server's own
                endpoint, and False prefers the translation to chat.
        """
        if Endpoint.CHAT not in self.speaks:
            return self.adapted if capabilities.chat else frozenset()
        declared = {
            endpoint: getattr(capabilities, endpoint.value) for endpoint in _TRANSLATED_TO_CHAT
        }
        native = {endpoint for endpoint, way in declared.items() if way == NATIVE}
        translated_to_chat = {endpoint for endpoint, way in declared.items() if not way}
        return (
            (self.adapted - native) | translated_to_chat if capabilities.chat else frozenset()
        )

    def serves_of(self, capabilities: Capabilities) -> frozenset[Endpoint]:
        """Returns all endpoints that a model of this kind serves, native and translated."""
        native = {
            endpoint
            for endpoint in _TRANSLATED_TO_CHAT
            if getattr(capabilities, endpoint.value) == NATIVE
        }
        return self.speaks | native | self.translates(capabilities)


_OLD_LIMIT, _NEW_LIMIT = AnswerLimit
_HOSTED = ProviderGroup.HOSTED
_LOCAL = ProviderGroup.LOCAL
_OAUTH = ProviderGroup.OAUTH

# By kind. For vLLM and SGLang, the list of models already has the context window.
_OWN_SERVERS: Final = {
    # `/api/ps` has the windows of loaded models; `/api/show` has only their possible windows.
    "ollama": OwnServer("/api/tags", "/api/ps", ("models", "context_length")),
    "llama_cpp": OwnServer("/health", "/props", ("default_generation_settings", "n_ctx")),
    "tgi": OwnServer("/health", "/info", ("max_total_tokens",)),
    **dict.fromkeys(("vllm", "sglang"), OwnServer()),
}

_ALL: Final = (
    ProviderKind(
        "openai",
        _HOSTED,
        _OPENAI_ENDPOINTS,
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        ("gpt", "chatgpt", "o1", "o3", "o4", "text-embedding"),
        answer_limit=_NEW_LIMIT,
        catalogue_names=("openai",),
    ),
    ProviderKind(
        "anthropic",
        _HOSTED,
        frozenset({Endpoint.MESSAGES}),
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        ("claude",),
        KeyStyle.ANTHROPIC,
        translated=_CHAT,
        cache_marks=True,
        catalogue_names=("anthropic",),
    ),
    ProviderKind(
        "gemini",
        _HOSTED,
        frozenset(),
        "https://generativelanguage.googleapis.com/v1beta",
        "GEMINI_API_KEY",
        ("gemini", "gemma"),
        KeyStyle.GOOGLE,
        translated=_CHAT,
        catalogue_names=("gemini",),
    ),
    # Azure speaks OpenAI's protocol at .../openai/v1; the model is a deployment's name.
    ProviderKind(
        "azure_openai",
        _HOSTED,
        _OPENAI_ENDPOINTS,
        key_env="AZURE_OPENAI_API_KEY",
        key_style=KeyStyle.AZURE,
        answer_limit=_NEW_LIMIT,
        catalogue_names=("azure",),
    ),
    # Uses Bedrock's Converse API at a region's address, with a Bedrock API key.
    ProviderKind(
        "bedrock",
        _HOSTED,
        key_env="AWS_BEARER_TOKEN_BEDROCK",
        translated=_CHAT,
        cache_marks=True,
        catalogue_names=("bedrock", "bedrock_converse"),
    ),
    # Uses Gemini's protocol at a project's address, with an access token.
    ProviderKind(
        "vertex",
        _HOSTED,
        translated=_CHAT,
        catalogue_names=("vertex_ai",),
    ),
    ProviderKind(
        "groq",
        _HOSTED,
        _CHAT,
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        catalogue_names=("groq",),
    ),
    ProviderKind(
        "deepseek",
        _HOSTED,
        _CHAT,
        "https://api.deepseek.com/v1",
        "DEEPSEEK_API_KEY",
        ("deepseek",),
        answer_limit=_OLD_LIMIT,
        catalogue_names=("deepseek",),
    ),
    ProviderKind(
        "mistral",
        _HOSTED,
        _CHAT_EMBED,
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        (
            "mistral",
            "ministral",
            "magistral",
            "codestral",
            "devstral",
            "pixtral",
        ),
        answer_limit=_OLD_LIMIT,
        catalogue_names=("mistral",),
    ),
    ProviderKind(
        "openrouter",
        _HOSTED,
        _OPENAI_ENDPOINTS,
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        catalogue_names=("openrouter",),
    ),
    # Chat and embeddings are the default, because local servers support other endpoints only in
    # part. Operators declare a working endpoint for a model.
    *(
        ProviderKind(
            name,
            _LOCAL,
            _CHAT_EMBED,
            api_base,
            keywords=keywords,
            needs_key=False,
            answer_limit=limit,
            catalogue_names=names,
            own_server=_OWN_SERVERS.get(name),
        )
        for name, api_base, keywords, limit, names in (
            (
                "ollama",
                "http://127.0.0.1:11434/v1",
                ("ollama",),
                _OLD_LIMIT,
                ("ollama",),
            ),
            ("lm_studio", "http://127.0.0.1:1234/v1", (), _OLD_LIMIT, ()),
            ("vllm", "", ("vllm",), None, ()),
            ("llama_cpp", "http://127.0.0.1:8080/v1", (), None, ()),
            ("sglang", "http://127.0.0.1:30000/v1", (), None, ()),
            ("tgi", "http://127.0.0.1:3000/v1", (), _OLD_LIMIT, ()),
            ("ovms", "http://127.0.0.1:8000/v3", (), None, ()),
            ("litellm", "http://127.0.0.1:4000/v1", (), None, ()),
            (CUSTOM_KIND, "", (), None, ()),
        )
    ),
    ProviderKind(
        "openai_codex",
        _OAUTH,
        frozenset({Endpoint.RESPONSES}),
        "https://chatgpt.com/backend-api/codex",
        catalogue_names=("chatgpt",),
        claim_headers={
            "chatgpt-account-id": (
                "https://api.openai.com/auth",
                "chatgpt_account_id",
            )
        },
    ),
    ProviderKind(
        "github_copilot",
        _OAUTH,
        _CHAT_EMBED,
        "https://api.githubcopilot.com",
        catalogue_names=("github_copilot",),
    ),
    ProviderKind("sim", ProviderGroup.SIMULATED, frozenset(Endpoint), needs_key=False),
)

PROVIDER_KINDS: Final[Mapping[str, ProviderKind]] = {kind.name: kind for kind in _ALL}
# Beginnings of model names that belong to every local kind: their vendors publish the weights,
# and Swapproof has no kind for these vendors' own APIs.
LOCAL_KEYWORDS: Final = ("qwen",)
# Other names of the kinds, by LiteLLM, vendors, and servers that speak OpenAI's protocol.
_OTHER_NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("azure", "azureopenai", "azureai"), "azure_openai"),
    **dict.fromkeys(("aws", "awsbedrock", "amazon"), "bedrock"),
    **dict.fromkeys(("google", "googleai", "aistudio"), "gemini"),
    **dict.fromkeys(("llamaserver", "llamafile"), "llama_cpp"),
    **dict.fromkeys(("openaicompatible", "openailike"), CUSTOM_KIND),
    "textgenerationinference": "tgi",
    "litellmproxy": "litellm",
    "chatgpt": "openai",
    "claude": "anthropic",
    "vertexai": "vertex",
    "hostedvllm": "vllm",
    "copilot": "github_copilot",
    "codex": "openai_codex",
}
# Kinds that the router can call.
SERVED_KINDS: Final = frozenset(name for name, kind in PROVIDER_KINDS.items() if kind.serves)


def check_kind(name: str) -> str:
    """Returns the name of a kind. Raises InputError, with the nearest kind, otherwise."""
    if name in PROVIDER_KINDS:
        return name
    suggestion = did_you_mean(name, PROVIDER_KINDS, meant=other_name(name))
    raise InputError(f"unknown kind {name!r}{suggestion}; kinds: {', '.join(PROVIDER_KINDS)}")


def find_kind_at(api_base: str) -> str:
    """Returns the kind that speaks OpenAI's protocol at the same host; empty without one.

    A vendor with a protocol of its own may speak OpenAI's at another path of its host.
    """
    host = urlsplit(api_base).hostname
    for kind in PROVIDER_KINDS.values():
        hosted = kind.group is ProviderGroup.HOSTED and Endpoint.CHAT in kind.speaks
        if hosted and host and host == urlsplit(kind.api_base).hostname:
            return kind.name
    return ""


def other_name(name: str) -> str:
    """Returns the kind that another product calls by this name; empty for an unknown name."""
    return _OTHER_NAMES.get("".join(filter(str.isalnum, name.casefold())), "")


def add_command(kind: str) -> str:
    """Returns the command that sets up a provider of the kind. An OAuth provider needs a
    sign-in, and a kind without a usual address needs an address.
    """
    provider_kind = PROVIDER_KINDS[kind]
    if provider_kind.group is ProviderGroup.OAUTH:
        return f"swapproof provider key login {kind}"
    return f"swapproof provider add {kind}{'' if provider_kind.api_base else ' --api-base URL'}"


def rename_answer_limit(fields: Mapping[str, object], kind: str) -> dict[str, object]:
    """Gives the field that limits the answer the name that the kind accepts. An existing field
    of that name keeps its value.

    Args:
        fields: of a request's body; the function copies them.

    For an unknown kind, and for a kind that accepts both names, all fields stay.
    """
    provider_kind = PROVIDER_KINDS.get(kind)
    preferred = provider_kind.answer_limit if provider_kind is not None else None
    if preferred is None:
        return dict(fields)
    other_fields = {
        name: value for name, value in fields.items() if name not in set(AnswerLimit)
    }
    for answer_limit in (preferred, *AnswerLimit):
        if answer_limit in fields:
            return {**other_fields, preferred.value: fields[answer_limit]}
    return other_fields
