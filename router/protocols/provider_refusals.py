"""Lists the causes for which providers refuse requests, by status, code and message.

A table without logic: `provider_failures` reads it from top to bottom, so a special row
precedes a general one; the rows of `provider_limits` follow. Each pattern is a message that a
provider has sent; add a provider's new message as a pattern here.
"""

import re
from collections.abc import Collection
from enum import StrEnum
from typing import Final, NamedTuple

from harness.frame.failures import FailureClass, Reach
from harness.providers.models.capabilities import Endpoint

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


def pattern_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


class Piece(StrEnum):
    """A part that a provider may refuse in a conversation that another provider began."""

    THINKING = "thinking"  # another provider signed it, or it belongs to another prompt
    REASONING = "reasoning"  # another provider encrypted it, or this provider did not store it
    NO_REASONING = "no_reasoning"  # the provider requires it, and the conversation lacks it
    SIGNATURE = "signature"  # another provider signed the tool call
    HALF_CHARACTER = "half_character"  # half of a pair of code units, which is no text
    FILE = "file"  # a file or container of another account, or a deleted one


class RefusalRow(NamedTuple):
    """One cause of a refusal.

    The message may repeat a client's text. Therefore, if the class opens a circuit, the pattern
    matches only at the message's beginning or only with the error type `only_type`.
    loses: the part that the router removes before it tries again. reach: None for the
    class's default. instead: the endpoint that accepts the request.
    """

    failure: FailureClass
    statuses: Collection[int]
    codes: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None
    only_type: str = ""
    loses: Piece | None = None
    reach: Reach | None = None
    instead: Endpoint | None = None


_HALF_CHARACTER: Final = pattern_of(
    "no low surrogate in string",  # Anthropic
    r"lone (leading|trailing) surrogate",  # DeepSeek, Cerebras
    r"unpaired (high |low )?surrogate",
    "surrogates not allowed",  # Python servers, such as vLLM
    "^we could not parse the json body of your request",  # OpenAI
)

CAUSES: Final = (
    RefusalRow(
        _F.OUR_KEY,
        (400, 403),
        frozenset(
            {
                "API_KEY_INVALID",
                "ACCESS_TOKEN_SCOPE_INSUFFICIENT",  # Google
                "API_KEY_ANDROID_APP_BLOCKED",
                "API_KEY_HTTP_REFERRER_BLOCKED",
                "API_KEY_IOS_APP_BLOCKED",
                "API_KEY_IP_ADDRESS_BLOCKED",
                "API_KEY_SERVICE_BLOCKED",
                "CONSUMER_INVALID",
                "CONSUMER_SUSPENDED",
                "SERVICE_DISABLED",
                "accessNotConfigured",
                "invalid_api_key",
                "UnrecognizedClientException",
            }
        ),
        pattern_of(
            "^api key (not valid|expired|not found)",  # Google
            "^your api key was reported as leaked",
            "^permission denied: consumer ",
            "^requests (from referer|from this|to this api) .{1,200} are blocked",
            r"^[\w .-]{1,80} has not been used in project",
            "^your project has been denied access",
            "^this service has been disabled in this account",
            "^oauth (authentication is currently not allowed|token does not meet)",  # Anthropic
            "^(incorrect|invalid) api key",  # xAI
            r"^access to the \w+ endpoint is denied",
            "^the security token included in the request is (invalid|expired)",  # AWS
            "^user: .{1,200} is not authorized to perform",
            "^the request signature we calculated does not match",
            "^signature (expired|not yet current)",
            "^missing x-auth-key",  # Cloudflare
            "^kimi for coding is currently only available for",  # Moonshot
            "^(either x-portkey-config or|invalid provider passed)",  # Portkey
        ),
    ),
    # AWS: an account that may not use models.
    RefusalRow(
        _F.OUR_KEY,
        (400,),
        words=pattern_of(r"^operation not allowed\.?$"),
        only_type="invalid_request_error",
    ),
    # LiteLLM: each key has a budget of its own, beside the team's and the user's.
    RefusalRow(
        _F.QUOTA,
        CLIENT_STATUSES,
        words=pattern_of("^budget has been exceeded! key="),
        reach=_R.KEY,
    ),
    RefusalRow(
        _F.QUOTA,
        CLIENT_STATUSES,
        frozenset(
            {
                "insufficient_quota",
                "budget_exceeded",  # LiteLLM
                "billing_not_active",
                "billing_hard_limit_reached",
                "BILLING_DISABLED",  # Google
                "exceeded_current_quota_error",  # Moonshot
                "Arrearage",  # Alibaba
                "1112",  # Zhipu
                "1113",
                "1121",
                "1309",
                "organization_restricted",  # Groq
            }
        ),
        pattern_of(
            "^your team (.{1,80} )?has either used all available credits",  # xAI
            "^your newly created teams? doesn't have any credits",
            "^you have run out of credits",
            "^you've reached your usage limit for this billing cycle",  # Moonshot
            "^account .{1,80} is suspended",  # Fireworks
            "^this api method requires billing to be enabled",  # Google
            "^sorry, your account balance is insufficient",  # SiliconFlow
            "^(aierror: )*you have used up your daily free allocation",  # Cloudflare
            "^(aierror: )*service unavailable for account",
        ),
    ),
    # Alibaba: each model has a free quota of its own.
    RefusalRow(
        _F.QUOTA,
        (400, 403, 429),
        frozenset({"AllocationQuota.FreeTierOnly"}),
        pattern_of("^free allocated quota exceeded"),
        reach=_R.KEY_AND_MODEL,
    ),
    RefusalRow(
        _F.QUOTA,
        (400,),
        words=pattern_of(
            "credit balance is too low",
            "organization has been disabled",
            "specified api usage limits",
            "^third-party apps now draw from your extra usage",
            "^you're out of extra usage",
        ),
        only_type="invalid_request_error",  # Anthropic
    ),
    RefusalRow(
        _F.REGION,
        (400, 403, 451),
        frozenset({"unsupported_country_region_territory"}),
        pattern_of("^(country, region|user location|your (country|region)).* not supported"),
    ),
    RefusalRow(
        _F.BLOCKED,
        (403,),
        words=pattern_of("^(forbidden|access denied|request blocked)[.!]?$"),
    ),
    # Azure: the resource's network does not let any request of ours in.
    RefusalRow(
        _F.BLOCKED,
        (403,),
        words=pattern_of(
            "^access denied due to virtual network",
            "^a virtual network is configured for this resource",
            "^public access is disabled",
        ),
        reach=_R.TARGET,
    ),
    # Only this request exceeds the limit or the balance: the provider answers smaller requests.
    RefusalRow(
        _F.UNSUPPORTED,
        (402, 413, 429),
        words=pattern_of(
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
        frozenset(
            {
                "engine_overloaded_error",
                "overloaded_error",
                "MODEL_CAPACITY_EXHAUSTED",  # Google
                "ModelNotReadyException",  # AWS
                "1312",  # Zhipu
            }
        ),
        pattern_of(
            "^(the )?(model|engine) is (currently )?overloaded",
            "^no capacity available for model",  # Google
            r"^resource exhausted\. please try again later",
            "^the system is currently experiencing high demand",  # Azure
            "^service tier capacity exceeded for this model",  # Mistral
            "^(aierror: )*no more data centers",  # Cloudflare
            "^no deployments available for selected model",  # LiteLLM
        ),
    ),
    RefusalRow(
        _F.RATE_LIMITED,
        (429,),
        frozenset({"1308", "1310"}),  # Zhipu
        pattern_of(r"^you \(.{1,80}\) have reached your \w+ usage limit"),  # Ollama
        reach=_R.ACCOUNT,
    ),
    # AWS limits each model's tokens, and asks to send the request again later.
    RefusalRow(
        _F.RATE_LIMITED,
        (400,),
        frozenset({"ServiceQuotaExceededException"}),
    ),
    # LM Studio
    RefusalRow(
        _F.SERVER,
        (400,),
        words=pattern_of(
            "^(the model has crashed|model unloaded)",
            # The server cannot read the model's template.
            "^error rendering prompt with jinja template: .(syntaxerror|unknown test):",
        ),
    ),
    # SGLang: a chat template refuses the client's turns.
    RefusalRow(
        _F.BAD_REQUEST,
        (500,),
        words=pattern_of("^internal server error: message has tool role, but there was no"),
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
        pattern_of(
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
            r"^(\d+ bad request: )?too many input tokens",  # AWS
            "^malformed input request: expected maxlength",
            r"^litellm\.\w+: (litellm\.\w+: )*context window exceeded",
            r"^(litellm\.\w+: )*litellm\.ContextWindowExceededError",
        ),
    ),
    # llama.cpp. A model may have written other texts in a reply of status 500.
    RefusalRow(
        _F.CONTEXT_WINDOW,
        (500,),
        frozenset({"exceed_context_size_error"}),
        pattern_of(
            r"^input (\(\d+ tokens\) )?is (too large to process|larger than the max context)",
        ),
    ),
    RefusalRow(
        _F.CONTENT_POLICY,
        (400, 403, 404, 446, 498),
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
                "hooks_failed",  # Portkey
            }
        ),
        pattern_of(
            "^content exists risk",  # DeepSeek
            "^content violates usage guidelines",  # xAI
            "^this request was blocked due to potential violations",  # Cohere
            "content management policy",  # Azure, through gateways
            r"^(litellm\.\w+: )*litellm\.ContentPolicyViolationError",
        ),
    ),
    RefusalRow(
        _F.CONTENT_POLICY,
        (400,),
        words=pattern_of("content filtering policy"),
        only_type="invalid_request_error",
    ),
    RefusalRow(
        _F.FOREIGN_STATE,
        _INVALID,
        frozenset({"thinking_signature_invalid"}),
        pattern_of(
            r"invalid `?signature`? in `?thinking`? block",
            r"invalid `?data`? in `?redacted_thinking`? block",
            "bound to a different conversation",
            "blocks in the latest assistant message cannot be modified",
            r"expected `?thinking`? or `?redacted_thinking`?, but found",
            r"must start with a `?thinking`? block",
            "^user messages cannot contain reasoning content",  # AWS
        ),
        loses=Piece.THINKING,
    ),
    RefusalRow(
        _F.FOREIGN_STATE,
        _INVALID,
        frozenset({"invalid_encrypted_content"}),
        pattern_of(
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
        words=pattern_of(
            r"reasoning_content`? in the thinking mode must be passed back",
            r"reasoning_content`? is missing in assistant",
        ),
        loses=Piece.NO_REASONING,
    ),
    RefusalRow(
        _F.FOREIGN_STATE,
        _INVALID,
        words=pattern_of(
            r"missing a `?thought_signature",
            "thought signature is not valid",
            "^corrupted thought signature",
            r"^invalid `?(thought_)?signature`?",
        ),
        loses=Piece.SIGNATURE,
    ),
    # A client cut a text between the two halves of an emoji. The JSON itself is valid.
    RefusalRow(
        _F.BAD_REQUEST,
        _INVALID,
        words=_HALF_CHARACTER,
        loses=Piece.HALF_CHARACTER,
    ),
    # If the request has no half character, the server's own text has one, so another target
    # may answer.
    RefusalRow(_F.SERVER, (500,), words=_HALF_CHARACTER, loses=Piece.HALF_CHARACTER),
    RefusalRow(
        _F.FOREIGN_STATE,
        _INVALID,
        frozenset({"file_not_found", "container_not_found"}),
        pattern_of(
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
        pattern_of(
            r"^(item|(previous )?response|conversation|thread|prompt|message|vector store|"
            rf"batch|cached ?content)s?\b\W+\w.*\b({_GONE})",
            r"^no such (response|conversation|item)\b",
            r"^invalid 'input\[\d+\]\.id': '[^']+'\. expected an id that (begins|contains)\b",
        ),
    ),
    # Google: another project's file. Our account still works.
    RefusalRow(
        _F.FOREIGN_STATE,
        (403,),
        words=pattern_of(
            r"^you do not have permission to access the file\b",
            r"^cached ?content not found\b",
        ),
    ),
    # OpenAI: the endpoint serves this model without reasoning, or without tools.
    RefusalRow(
        _F.UNSUPPORTED,
        (400,),
        words=pattern_of(
            "^function tools with reasoning_effort are not supported",
            r"^function tools .{0,120}\bv1/chat/completions\b.{0,80}\buse /?v1/responses\b",
        ),
        instead=Endpoint.RESPONSES,
    ),
    RefusalRow(
        _F.ENDPOINT_MISSING,
        (400, 404, 405, 422, 434, 500, 501),
        frozenset(
            {
                "unknown_url",
                "not_implemented",
                "OperationNotSupported",
                "unsupported_api_for_model",  # GitHub Copilot
                "1212",  # Zhipu
                "1220",
            }
        ),
        pattern_of(
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
            r"^azure openai responses api is (not )?enabled\b",
        ),
    ),
    RefusalRow(
        _F.ENDPOINT_MISSING,
        (403,),
        words=pattern_of(
            "^you are not allowed to generate embeddings from this model"
        ),  # OpenAI
    ),
    # Another key may belong to a project or an account that has access.
    RefusalRow(
        _F.MODEL_UNKNOWN,
        (400, 401, 403, 404, 429),
        frozenset(
            {
                "model_permission_blocked_org",
                "model_permission_blocked_project",
                "no_access",  # GitHub
                "Model.AccessDenied",  # Alibaba
                "1311",  # Zhipu
                "key_model_access_denied",  # LiteLLM
                "org_model_access_denied",
                "project_model_access_denied",
                "team_model_access_denied",
                "user_model_access_denied",
            }
        ),
        pattern_of(
            r"^project `?\S+ does not have access to model\b",  # OpenAI
            "^(aierror: )*the account is not allowed to access this model",  # Cloudflare
            "^(aierror: )*user has not agreed to .{1,80} model terms",
            "^unable to access non-serverless model",  # Together
            # OpenRouter
            r"^(openrouter error: )?no endpoints \w+ matching your (data|guardrail)",
        ),
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
                "unavailable_model",  # GitHub
                "RESOURCE_DOES_NOT_EXIST",  # Databricks
                "ENDPOINT_NOT_FOUND",  # Databricks
                "ResourceNotFoundException",  # AWS
                "ModelNotOpen",  # Volcano Engine
                "1211",  # Zhipu
            }
        ),
        pattern_of(
            r"^model: (?!.*extra inputs)",  # Anthropic
            r"^((ai)?error: )*(the )?(requested |provided |specified |publisher )?(api )?"
            r"(model|deployment|inference endpoint)s?\b.{0,200}?(not found|not exist|unknown|"
            r"is invalid|not available|no longer|deprecated|decommissioned|retired|"
            r"not deployed|not loaded|not be found|disabled|end of its life)",
            r"^(aierror: )*(no such|unknown|invalid) model\b",
            # Codex, Alibaba
            r"^(the '[^']{1,80}' model|model '[^']{1,80}') is not supported\b",
            r"^project `?\S+ is not allowed to use publisher model\b",  # Google
            r"^no models loaded\b",  # LM Studio
            r"^no endpoints found (for|matching)\b",  # OpenRouter
            r"^function '.{1,80}': not found for account",  # NVIDIA
            r"^(you don't have access to the model|invocation of model id|this model version|"
            r"access denied\. this model is marked|could not resolve the foundation model|"
            r"model use case details have not|model access is denied)\b",  # AWS
            r"^not found the model\b",  # Moonshot
            r"^no allowed providers are available\b",  # OpenRouter
            r"^(\{'error': ')?(/[\w/]+: )?invalid model name passed in model=",  # LiteLLM
            r"^(litellm\.\w+: )?you passed in model=",
            r"^data retention mode \S+ is not available for this model",  # AWS
            r"^\S+ is not a valid model",
            r"^unable to access model\b",
        ),
    ),
    # The rows above have the messages about a model or a file.
    RefusalRow(_F.OUR_KEY, (403,), frozenset({"AccessDeniedException"})),  # AWS
    # Anthropic and Google. The missing permission may be for this model alone.
    RefusalRow(
        _F.OUR_KEY,
        (403,),
        frozenset({"permission_error", "PERMISSION_DENIED"}),
        reach=_R.KEY_AND_MODEL,
    ),
)
