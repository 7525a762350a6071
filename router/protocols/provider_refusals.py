"""Lists the causes for which providers refuse requests, by status, code and message.

A table without logic: `provider_failures` reads it from top to bottom, so a special row
precedes a general one. Each pattern is a message that a provider has sent; add a provider's
new message as a pattern here.
"""

import re
from collections.abc import Collection
from enum import StrEnum
from typing import Final, NamedTuple

from harness.frame.failures import FailureClass, Reach

_F = FailureClass
_R = Reach
CLIENT_STATUSES: Final = range(400, 500)
_INVALID: Final = (400, 404, 422)
_GONE: Final = "not found|not exist|expired|no longer|not be found"
# The only statuses of an answer that a client can use.
GOOD_STATUSES: Final = range(200, 300)
# Statuses of a refusal that may be about a piece of the history or a field.
REPAIRABLE_STATUSES: Final = frozenset({400, 404, 415, 422, 500, 501})
# After these statuses, client libraries send the same request again.
REPEATED_STATUSES: Final = frozenset({405, *range(500, 600)})


def _pattern(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


class Piece(StrEnum):
    """A part that a provider may refuse in a conversation that another provider began."""

    THINKING = "thinking"  # another provider signed it, or it belongs to another prompt
    REASONING = "reasoning"  # another provider encrypted it, or this provider did not store it
    NO_REASONING = "no_reasoning"  # the provider requires it, and the conversation lacks it
    SIGNATURE = "signature"  # another provider signed the tool call
    FILE = "file"  # a file or container of another account, or a deleted one


class RefusalRow(NamedTuple):
    """One cause of a refusal.

    The message may repeat a client's text. Therefore a pattern whose class opens a circuit
    matches only at the message's beginning, or only with the error type `only_type`.
    loses: the part that the router removes before it tries again. reach: None for the
    class's default.
    """

    failure: FailureClass
    statuses: Collection[int]
    codes: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None
    only_type: str = ""
    loses: Piece | None = None
    reach: Reach | None = None


REFUSALS: Final = (
    RefusalRow(
        _F.OUR_KEY,
        (400, 403),
        frozenset(
            {
                "API_KEY_INVALID",
                "invalid_api_key",
                "UnrecognizedClientException",
            }
        ),
        _pattern(
            "^api key (not valid|expired|not found)",  # Google
            "^(incorrect|invalid) api key",  # xAI
            "^the security token included in the request is (invalid|expired)",  # AWS
            "^user: .{1,200} is not authorized to perform",
            "^the request signature we calculated does not match",
            "^signature (expired|not yet current)",
            "^missing x-auth-key",  # Cloudflare
        ),
    ),
    RefusalRow(
        _F.QUOTA,
        CLIENT_STATUSES,
        frozenset(
            {
                "insufficient_quota",
                "billing_not_active",
                "billing_hard_limit_reached",
                "exceeded_current_quota_error",  # Moonshot
                "Arrearage",  # Alibaba
                "1113",  # Zhipu
                "1309",
                "budget_exceeded",  # LiteLLM
                "organization_restricted",  # Groq
            }
        ),
        _pattern(
            "^your team has either used all available credits",  # xAI
            "^account .{1,80} is suspended",  # Fireworks
            "^sorry, your account balance is insufficient",  # SiliconFlow
            "^(aierror: )*you have used up your daily free allocation",  # Cloudflare
        ),
    ),
    RefusalRow(
        _F.QUOTA,
        (400,),
        words=_pattern(
            "credit balance is too low",
            "organization has been disabled",
            "specified api usage limits",
        ),
        only_type="invalid_request_error",  # Anthropic
    ),
    RefusalRow(
        _F.REGION,
        (400, 403, 451),
        frozenset({"unsupported_country_region_territory"}),
        _pattern("^(country, region|user location|your (country|region)).* not supported"),
    ),
    RefusalRow(
        _F.BLOCKED,
        (403,),
        words=_pattern("^(forbidden|access denied|request blocked)[.!]?$"),
    ),
    # Only this request exceeds the limit or the balance: the provider answers smaller requests.
    RefusalRow(
        _F.UNSUPPORTED,
        (402, 413, 429),
        words=_pattern(
            "^request too large for .* (tokens|requests) per min",  # OpenAI, Groq
            # OpenRouter. An account that can afford 0 tokens has no credit left.
            "^this request requires more credits, or fewer max_tokens.* can only afford [1-9]",
            r"^prompt tokens limit exceeded: \d+ > [1-9]",
            "^extra usage is required for long context",  # Anthropic
        ),
    ),
    RefusalRow(
        _F.OVERLOADED,
        (429,),
        frozenset({"engine_overloaded_error", "overloaded_error"}),
        _pattern("^(the )?(model|engine) is (currently )?overloaded"),
    ),
    # LM Studio
    RefusalRow(
        _F.SERVER,
        (400,),
        words=_pattern("^(the model has crashed|model unloaded)"),
    ),
    # Groq: the model's answer was not the call or JSON that the request demands.
    RefusalRow(
        _F.ABORTED,
        (400, 422),
        frozenset(
            {
                "tool_use_failed",
                "json_validate_failed",
                "output_parse_failed",
            }
        ),
    ),
    RefusalRow(
        _F.CONTEXT_WINDOW,
        (400, 403, 404, 413, 422),
        frozenset(
            {
                "context_length_exceeded",
                "exceed_context_size_error",
                "tokens_limit_reached",  # GitHub
                "1261",  # Zhipu
                "model_max_prompt_tokens_exceeded",  # GitHub Copilot
            }
        ),
        _pattern(
            "prompt is too long",
            "exceed context limit",
            "maximum context length",  # OpenAI, vLLM, DeepSeek, Mistral
            "maximum prompt length",  # xAI
            "model's context length is only",  # vLLM
            # llama.cpp, OpenAI, Ollama, vLLM
            "exceeds? the (available context size|context (window|length)|max_model_len)",
            "^input .{0,40}exceeds the maximum allowed length",  # SGLang
            "longer than the (model's context|maximum model) length",  # SGLang, vLLM
            # Cloudflare, Moonshot, Ollama
            "exceeded (this model context window|model token limit|(max )?context length)",
            "context window exceeds limit",  # MiniMax
            "context the overflows",  # LM Studio
            "^the number of tokens to keep from the initial prompt",
            r"`inputs` (tokens \+ `max_new_tokens` must be|must have less than)",  # TGI
            "range of input length",  # Alibaba
            "^length of prompt_tokens",  # SiliconFlow
            "^prompt token count of",  # GitHub Copilot
            "^max_tokens must be at least 1, got -",  # vLLM: the prompt left no room
            "input token count .* exceeds",  # Google
            "^input is too long",  # AWS
            "^too many tokens",  # Cohere
        ),
    ),
    # llama.cpp: an input for an embedding. Other words of a 500 may be a model's.
    RefusalRow(
        _F.CONTEXT_WINDOW,
        (500,),
        words=_pattern(
            r"^input (\(\d+ tokens\) )?is (too large to process|larger than the max context)"
        ),
    ),
    RefusalRow(
        _F.CONTENT_POLICY,
        (400, 403, 404),
        frozenset(
            {
                "content_policy_violation",
                "content_filter",
                "invalid_prompt",  # OpenAI
                "bio_policy",
                "cyber_policy",
                "data_inspection_failed",  # Alibaba
                "1301",  # Zhipu
                "SensitiveContentDetected",  # Volcano Engine
                "InputTextSensitiveContentDetected",
                "InputImageSensitiveContentDetected",
                "OutputTextSensitiveContentDetected",
            }
        ),
        _pattern(
            "^content exists risk",  # DeepSeek
            "^content violates usage guidelines",  # xAI
        ),
    ),
    RefusalRow(
        _F.CONTENT_POLICY,
        (400,),
        words=_pattern("content filtering policy"),
        only_type="invalid_request_error",
    ),
    RefusalRow(
        _F.FOREIGN_STATE,
        _INVALID,
        frozenset({"thinking_signature_invalid"}),
        _pattern(
            r"invalid `?signature`? in `?thinking`? block",
            r"invalid `?data`? in `?redacted_thinking`? block",
            "bound to a different conversation",
            "blocks in the latest assistant message cannot be modified",
            r"expected `?thinking`? or `?redacted_thinking`?, but found",
            r"must start with a `?thinking`? block",
        ),
        loses=Piece.THINKING,
    ),
    RefusalRow(
        _F.FOREIGN_STATE,
        _INVALID,
        frozenset({"invalid_encrypted_content"}),
        _pattern(
            r"encrypted[ _]content\b.{0,80} could not be",
            "could not be decrypted",
            "items are not persisted when `?store",
            "was provided without its required",
            r"\bitem with id \S+ not found",
        ),
        loses=Piece.REASONING,
    ),
    RefusalRow(
        _F.FOREIGN_STATE,
        _INVALID,
        words=_pattern(
            r"reasoning_content`? in the thinking mode must be passed back",
            r"reasoning_content`? is missing in assistant",
        ),
        loses=Piece.NO_REASONING,
    ),
    RefusalRow(
        _F.FOREIGN_STATE,
        _INVALID,
        words=_pattern(
            r"missing a `?thought_signature",
            "thought signature is not valid",
            "^corrupted thought signature",
            r"^invalid `?(thought_)?signature`?",
        ),
        loses=Piece.SIGNATURE,
    ),
    RefusalRow(
        _F.FOREIGN_STATE,
        _INVALID,
        frozenset({"file_not_found", "container_not_found"}),
        _pattern(
            rf"^(file|container)s?\b\W+\w.*\b({_GONE})",
            r"^file not found: .",  # Anthropic; llama.cpp: an endpoint
            r"^no such (file|container)\b",
        ),
        loses=Piece.FILE,
    ),
    RefusalRow(
        _F.FOREIGN_STATE,
        _INVALID,
        frozenset(
            {
                "previous_response_not_found",
                "conversation_not_found",
                "item_not_found",
            }
        ),
        _pattern(
            r"^(item|(previous )?response|conversation|thread|prompt|message|vector store|"
            rf"batch|cached ?content)s?\b\W+\w.*\b({_GONE})",
            r"^no such (response|conversation|item)\b",
        ),
    ),
    # Google: another project's file. Our account still works.
    RefusalRow(
        _F.FOREIGN_STATE,
        (403,),
        words=_pattern(
            r"^you do not have permission to access the file\b",
            r"^cached ?content not found\b",
        ),
    ),
    RefusalRow(
        _F.ENDPOINT_MISSING,
        (400, 404, 405, 422, 500, 501),
        frozenset(
            {
                "unknown_url",
                "not_implemented",
                "OperationNotSupported",
                "unsupported_api_for_model",  # GitHub Copilot
            }
        ),
        _pattern(
            r"^(not found|file not found|resource not found|404 page not found)\.?$",
            r"^(unknown|unrecognized|invalid) (request )?url",
            r"^cannot (post|get) /",
            r"^(no route|there is nothing at)\b",
            r"\bonly supported in .{0,20}v1/",
            r"(does not|doesn't|not) support(ed)? .{0,40}\b(api|endpoint|embeddings?|"
            r"chat completions?|completions|responses|/?v1/[a-z/]+)\b",
            r"^this is not a chat model",
            r"\bdoes not support (chat|generate|embed\w*|rerank\w*)\W*$",  # Ollama
            r"\boperation does not work with the specified model",  # Azure
            r"\bcannot be used with the .{1,40} endpoint\b",  # OpenRouter
        ),
    ),
    RefusalRow(
        _F.ENDPOINT_MISSING,
        (403,),
        words=_pattern("^you are not allowed to generate embeddings from this model"),  # OpenAI
    ),
    # Another key may belong to a project that has access.
    RefusalRow(
        _F.MODEL_UNKNOWN,
        (403,),
        frozenset(
            {
                "model_permission_blocked_org",
                "model_permission_blocked_project",
                "no_access",  # GitHub
                "Model.AccessDenied",  # Alibaba
            }
        ),
        _pattern(r"^project `?\S+ does not have access to model\b"),  # OpenAI
        reach=_R.KEY_AND_MODEL,
    ),
    RefusalRow(
        _F.MODEL_UNKNOWN,
        (400, 403, 404, 410, 422),
        frozenset(
            {
                "model_not_found",
                "DeploymentNotFound",
                "deployment_not_found",
                "invalid_model",
                "model_not_available",
                "model_decommissioned",
                "unknown_model",
                "model_not_supported",
                "model_terms_required",  # Groq
                "model_permission_blocked_org",
                "model_permission_blocked_project",
                "unavailable_model",  # GitHub
                "RESOURCE_DOES_NOT_EXIST",  # Databricks
                "ENDPOINT_NOT_FOUND",  # Databricks
                "no_access",  # GitHub
                "Model.AccessDenied",  # Alibaba
                "ModelNotOpen",  # Volcano Engine
                "1211",  # Zhipu
            }
        ),
        _pattern(
            r"^model: (?!.*extra inputs)",  # Anthropic
            r"^(error: )?(the )?(requested |provided |specified |publisher )?(api )?"
            r"(model|deployment|inference endpoint)s?\b.{0,200}?(not found|not exist|unknown|"
            r"is invalid|not available|no longer|deprecated|decommissioned|retired|"
            r"not deployed|not loaded|not be found|disabled|end of its life)",
            r"^(aierror: )*(no such|unknown|invalid) model\b",
            r"^the '[^']{1,80}' model is not supported\b",  # Codex
            r"^no models loaded\b",  # LM Studio
            r"^no endpoints found (for|matching)\b",  # OpenRouter
            r"^function '.{1,80}': not found for account",  # NVIDIA
            r"^(you don't have access to the model|invocation of model id|this model version|"
            r"access denied\. this model is marked|could not resolve the foundation model|"
            r"model use case details have not|model access is denied)\b",  # AWS
            r"^not found the model\b",  # Moonshot
            r"^no allowed providers are available\b",  # OpenRouter
            r"^(\{'error': ')?(/[\w/]+: )?invalid model name passed in model=",  # LiteLLM
            r"^\S+ is not a valid model",
            r"^unable to access model\b",
        ),
    ),
    RefusalRow(
        _F.UNSUPPORTED,
        (400, 404, 415, 422, 500, 501),
        frozenset(
            {
                "unsupported_value",
                "unsupported_parameter",
                "unknown_parameter",
                "integer_above_max_value",
                "integer_below_min_value",
                "decimal_above_max_value",
                "decimal_below_min_value",
                "array_above_max_length",
                "string_above_max_length",
                "not_supported_error",
                "extra_forbidden",
            }
        ),
        _pattern(
            r"\b(image|audio|video|vision|tools?|function call\w*|thinking|reasoning)\b"
            r".{0,30}\b(is|are) not supported",
            r"\b(does not|doesn't) support (image|audio|video|vision|tools?|function|thinking|"
            r"reasoning)",
            r"\bextra inputs are not permitted",
            r"^(unsupported|unrecognized|unknown) (value|parameter|argument|request argument)",
            r"^argument not supported",
            r"^`?(property|parameter)\b.{0,80} (is )?(unsupported|not supported)",
            r"^invalid json payload received\. unknown name",
            r"\bmax(_completion|_output)?_tokens\b.{0,80}(>|too large|less than or equal|"
            r"at (most|least)|above|below|range)",
            r"\b(temperature|top_p|top_k|penalty|seed)\b.{0,80}(not (be )?(supported|support|"
            r"enabled|specified|set)|deprecated|may only be|cannot both)",
            r"unexpected role\W+system\b",  # Anthropic's older models
            r"\b(role\W+system\W+is|system role) not supported",
            r"\bsystem message must be at the beginning",  # Qwen's template
            r"^tools? param requires",  # llama.cpp
            r"\btool choice requires --",  # vLLM
            r"\bis not a multimodal model\b",
            r"^no endpoints found that\b",  # OpenRouter
        ),
    ),
    # Limits of this target: parameters that it does not support, or too high values.
    RefusalRow(
        _F.UNSUPPORTED,
        (400, 404, 415, 422),
        words=_pattern(
            r"\bmodel\b.{0,80} (does not|doesn't) support\b",
            r"\b(is|are) (unsupported|incompatible with|unavailable now)\b",
            r"\bis not (enabled for|yet available for)\b",
            r"\b(does not|doesn't) support this\b",  # DeepSeek
            r"\b(temperature|top_p)\b.{0,40}only \S+ is allowed",  # Moonshot
            r"^(budget \d+|thinking) .{0,60}(only works in|may not be enabled)",
            r"\bextraneous key\b.{0,200} is not permitted",  # Bedrock
            r"\bunknown variant\b",  # DeepSeek
            r"\brange of max_tokens\b",
            r"\bsupported range is\b",  # Google
            r"^the maximum tokens you requested\b",  # Bedrock
            # Limits on the count of images, pages and cache marks.
            r"\bexceeds? .{0,30}\bmax(imum)?\b",
            r"\b(a maximum of|at most) \d+ .{0,40}\bmay be provided\b",
            # Chat templates, Mistral and Perplexity refuse this order of roles.
            r"\b(must|should) alternate\b",
            r"^(unexpected|expected last) role\b",
            r"\bparameter\.\w+ must be set to\b",  # Alibaba
        ),
    ),
)
