"""This table describes the kinds of providers: the endpoints they speak, their address, and how
they take a key.

A kind with `adapted` endpoints answers them through a translation (`router.upstream`); what it
`speaks` goes through as bytes. Also checks a provider's name, and renames a chat's answer limit
to the field that its kind knows.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from harness.domain.errors import InputError
from harness.domain.routing.capabilities import NATIVE, Capabilities, Endpoint

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_SHOWN: Final = 40


def check_provider_name(name: str) -> None:
    """Checks a provider's name. Raises InputError, also for a slash or a colon: a name stands
    before them, as in NAME/MODEL.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:_SHOWN]!r} is no name of a provider: take 1 to 63 of a-z, A-Z, 0-9, `-`, "
            "`_` and `.`, a letter or digit first"
        )


class AnswerLimit(StrEnum):
    """What a chat calls the most tokens that the answer may have, where only one name will do.

    OpenAI's thinking models refuse the first, which is all that many others know.
    """

    MAX_TOKENS = "max_tokens"
    MAX_COMPLETION_TOKENS = "max_completion_tokens"


class ProviderGroup(StrEnum):
    """Where a provider runs, and who vouches for the caller (D7)."""

    HOSTED = "hosted"
    LOCAL = "local"
    OAUTH = "oauth"  # by a person's account: chosen in so many words, never by a rule
    SIMULATED = "simulated"


class KeyStyle(StrEnum):
    """Says how a key travels: a bearer token, or alone in the header of this name."""

    BEARER = "authorization"
    ANTHROPIC = "x-api-key"
    AZURE = "api-key"
    GOOGLE = "x-goog-api-key"


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """What all providers of one kind have in common."""

    name: str
    group: ProviderGroup
    speaks: frozenset[Endpoint]
    adapted: frozenset[Endpoint] = frozenset()
    # Of a kind whose providers are all in one place, with the version that paths stand below;
    # empty where an operator must say it.
    api_base: str = ""
    key_style: KeyStyle = KeyStyle.BEARER
    key_env: str = ""  # the variable that the vendor's own tools read
    needs_key: bool = True  # without one, no request can succeed
    keywords: tuple[str, ...] = ()  # beginnings of model names that belong to this kind (D2)
    # Hints that none of its models takes (`domain.routing.degradation`).
    lacks: frozenset[str] = frozenset()
    # The one name of it that its chats know; None where both are known, or nobody knows.
    answer_limit: AnswerLimit | None = None
    cache_marks: bool = False  # its chats take `cache_control`
    catalogue_names: tuple[str, ...] = ()  # what the model catalogue calls its provider
    # Header → the path of the claim in its token (a JWT) that it repeats.
    claim_headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def serves(self) -> frozenset[Endpoint]:
        return self.speaks | self.adapted

    def translates(self, can: Capabilities) -> frozenset[Endpoint]:
        """Names the endpoints that a model of this kind answers by translation."""
        if Endpoint.CHAT not in self.speaks:
            return self.adapted if can.chat else frozenset()
        said = {endpoint: getattr(can, endpoint.value) for endpoint in _BRIDGED}
        native = {endpoint for endpoint, way in said.items() if way == NATIVE}
        chats = {endpoint for endpoint, way in said.items() if not way}
        return (self.adapted - native) | chats if can.chat else frozenset()

    def serves_of(self, can: Capabilities) -> frozenset[Endpoint]:
        """Names the endpoints that a model of this kind answers, natively or by translation."""
        own = {endpoint for endpoint in _BRIDGED if getattr(can, endpoint.value) == NATIVE}
        return self.speaks | own | self.translates(can)


_CHAT: Final = frozenset({Endpoint.CHAT})
_CHAT_EMBED: Final = frozenset({Endpoint.CHAT, Endpoint.EMBEDDINGS})
_OPENAIS: Final = frozenset({Endpoint.CHAT, Endpoint.EMBEDDINGS, Endpoint.RESPONSES})
_NO_TOP_K: Final = frozenset({"top_k"})
_OLD_LIMIT, _NEW_LIMIT = AnswerLimit
# What a chat can stand in for (`router.protocols`).
_BRIDGED: Final = frozenset({Endpoint.MESSAGES, Endpoint.RESPONSES})


def _adapted(
    speaks: frozenset[Endpoint], translated: frozenset[Endpoint] = frozenset()
) -> frozenset[Endpoint]:
    chats = Endpoint.CHAT in speaks | translated
    return translated | (_BRIDGED - speaks if chats else frozenset())


def _hosted(  # noqa: PLR0913, PLR0917 - the table's columns
    name: str,
    speaks: frozenset[Endpoint],
    api_base: str,
    key_env: str,
    keywords: tuple[str, ...] = (),
    key_style: KeyStyle = KeyStyle.BEARER,
    lacks: frozenset[str] = frozenset(),
    translated: frozenset[Endpoint] = frozenset(),
    answer_limit: AnswerLimit | None = None,
    *,
    cache_marks: bool = False,
    catalogue_names: tuple[str, ...] | None = None,
) -> ProviderKind:
    """A hosted kind. catalogue_names: None where the catalogue calls it as we do."""
    return ProviderKind(
        name,
        ProviderGroup.HOSTED,
        speaks,
        adapted=_adapted(speaks, translated),
        api_base=api_base,
        key_env=key_env,
        keywords=keywords,
        key_style=key_style,
        lacks=lacks,
        answer_limit=answer_limit,
        cache_marks=cache_marks,
        catalogue_names=(name,) if catalogue_names is None else catalogue_names,
    )


def _local(
    name: str,
    api_base: str,
    keywords: tuple[str, ...] = (),
    answer_limit: AnswerLimit | None = None,
    catalogue_names: tuple[str, ...] = (),
) -> ProviderKind:
    """A local kind. Its servers speak more than chats in part, or poorly: that is said of a
    model, where it works.
    """
    return ProviderKind(
        name,
        ProviderGroup.LOCAL,
        _CHAT_EMBED,
        adapted=_adapted(_CHAT_EMBED),
        api_base=api_base,
        needs_key=False,
        keywords=keywords,
        answer_limit=answer_limit,
        catalogue_names=catalogue_names,
    )


_ALL: Final = (
    _hosted(
        "openai",
        _OPENAIS,
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        ("gpt", "chatgpt", "o1", "o3", "o4", "text-embedding"),
        lacks=_NO_TOP_K,
        answer_limit=_NEW_LIMIT,
    ),
    _hosted(
        "anthropic",
        frozenset({Endpoint.MESSAGES}),
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        ("claude",),
        KeyStyle.ANTHROPIC,
        frozenset({"seed", "logprobs"}),
        translated=_CHAT,
        cache_marks=True,
    ),
    _hosted(
        "gemini",
        frozenset(),
        "https://generativelanguage.googleapis.com/v1beta",
        "GEMINI_API_KEY",
        ("gemini", "gemma"),
        KeyStyle.GOOGLE,
        translated=_CHAT,
    ),
    # Its v1 API is OpenAI's, at .../openai/v1; the model is the deployment's name.
    _hosted(
        "azure_openai",
        _OPENAIS,
        "",
        "AZURE_OPENAI_API_KEY",
        key_style=KeyStyle.AZURE,
        lacks=_NO_TOP_K,
        answer_limit=_NEW_LIMIT,
        catalogue_names=("azure",),
    ),
    # Its Converse API, in a region's place; its key is a Bedrock API key.
    _hosted(
        "bedrock",
        frozenset(),
        "",
        "AWS_BEARER_TOKEN_BEDROCK",
        translated=_CHAT,
        cache_marks=True,
        catalogue_names=("bedrock", "bedrock_converse"),
    ),
    # Gemini's protocol below a project's own place; its key is an access token.
    _hosted("vertex", frozenset(), "", "", translated=_CHAT, catalogue_names=("vertex_ai",)),
    _hosted(
        "groq",
        _CHAT,
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        lacks=_NO_TOP_K | {"logprobs"},
    ),
    _hosted(
        "deepseek",
        _CHAT,
        "https://api.deepseek.com/v1",
        "DEEPSEEK_API_KEY",
        ("deepseek",),
        answer_limit=_OLD_LIMIT,
    ),
    _hosted(
        "mistral",
        _CHAT_EMBED,
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        ("mistral", "ministral", "magistral", "codestral", "devstral", "pixtral"),
        # It refuses every field that it does not know.
        lacks=_NO_TOP_K | {"seed", "logprobs", "service_tier"},
        answer_limit=_OLD_LIMIT,
    ),
    _hosted("openrouter", _OPENAIS, "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    _local("ollama", "http://127.0.0.1:11434/v1", ("ollama",), _OLD_LIMIT, ("ollama",)),
    _local("lm_studio", "http://127.0.0.1:1234/v1", answer_limit=_OLD_LIMIT),
    _local("vllm", "", ("vllm",)),
    _local("ovms", "http://127.0.0.1:8000/v3"),
    _local("custom", ""),
    ProviderKind(
        "openai_codex",
        ProviderGroup.OAUTH,
        frozenset({Endpoint.RESPONSES}),
        api_base="https://chatgpt.com/backend-api/codex",
        catalogue_names=("chatgpt",),
        claim_headers={
            "chatgpt-account-id": ("https://api.openai.com/auth", "chatgpt_account_id")
        },
    ),
    ProviderKind(
        "github_copilot",
        ProviderGroup.OAUTH,
        _CHAT_EMBED,
        adapted=_adapted(_CHAT_EMBED),
        api_base="https://api.githubcopilot.com",
        catalogue_names=("github_copilot",),
    ),
    ProviderKind("sim", ProviderGroup.SIMULATED, frozenset(Endpoint), needs_key=False),
)

PROVIDER_KINDS: Final[Mapping[str, ProviderKind]] = {kind.name: kind for kind in _ALL}
# What a router can call.
SERVED_KINDS: Final = frozenset(name for name, kind in PROVIDER_KINDS.items() if kind.serves)


def rename_answer_limit(fields: Mapping[str, object], kind: str) -> dict[str, object]:
    """A chat's fields, the answer's limit under the name that the kind knows.

    Of two limits the one that has that name already stays.
    """
    known = PROVIDER_KINDS.get(kind)
    named = known.answer_limit if known is not None else None
    if named is None:
        return dict(fields)
    found = {name: value for name, value in fields.items() if name not in set(AnswerLimit)}
    for answer_limit in (named, *AnswerLimit):
        if answer_limit in fields:
            return {**found, named.value: fields[answer_limit]}
    return found
