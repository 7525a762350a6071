"""Lists the refusals of a field, a value, a number or an order that another target may take.

A table without logic, read after all rows of `provider_refusals`.
"""

from typing import Final

from harness.frame.failures import FailureClass
from router.protocols.provider_refusals import RefusalRow, pattern_of

LIMITS: Final = (
    RefusalRow(
        FailureClass.UNSUPPORTED,
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
                "invalid_function_parameters",
                "invalid_json_schema",
            }
        ),
        pattern_of(
            r"\b(image|audio|video|vision|tools?|function call\w*|thinking|reasoning)\b"
            r".{0,30}\b(is|are) not supported",
            r"\b(does not|doesn't) support (image|audio|video|vision|tools?|function|thinking|"
            r"reasoning)",
            r"\bextra inputs are not permitted",
            r"^(unsupported|unrecognized|unknown) (value|param|argument|request argument)",
            "^failed to parse messages: unsupported content part type",  # llama.cpp
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
        FailureClass.UNSUPPORTED,
        (400, 404, 405, 415, 422),
        words=pattern_of(
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
            r"\bparameter\.\w+ (must be set to|only support)\b",  # Alibaba
            "^a conversation must start with a user message",  # Bedrock
            "^conversation blocks and tool result blocks cannot be",
            "^the toolconfig field must be defined",
            "^there is nothing available to cache",
            r"\bvalue ('[^']+' )?at '[^']+' failed to satisfy constraint: member must satisfy",
            "^error rendering prompt with jinja template",  # LM Studio
            # Blocks, images and counts.
            r"\binput tag '[^']+' found using\b",  # Anthropic
            r"\bunsupported image format\b",
            r"\b(at most|up to) \d+ (images?|requests)\b",
            "^too many images",
            r"\bmaximum number of items is\b",
            # Schemas.
            r"\bfor '\w+' type, ",  # Anthropic
            r"\binput_schema\.type: field required",
            r"\bschema contains features not supported\b",  # vLLM
            "^failed to initialize samplers",  # llama.cpp
            "^the specified schema produces a constraint",  # Google
            "^json schema not supported",
            r"\bis not a valid \w+ flavored json schema\b",  # Moonshot
            # Fields that exclude or require one another, the API's version, or a model.
            r"\bis (only (allowed|supported)|enabled only)\b",
            r"\bare not available when\b",
            r"\b(is|are) not (currently |yet )?supported\b",
            r"\bdoes not support being set\b",  # Alibaba
            r"\bmay only be\b",
            r"\bresponse_format\.type\W{1,3}must be\b",  # LM Studio
            r"\bonly named tools are supported\b",
            r"\bcannot be combined with\b",
            r"\bor tools, not both\b",
            r"\bmust be unset when\b",
            # Thinking.
            r"\b(budget_tokens|thinking_budget)\b.{0,60}\bgreater than\b",
            r"\bgreater than `thinking\.budget_tokens`",
            r"\bonly one of thinking budget and\b",
            r"\breasoning_effort\W{1,3}must be one of\b",
            "^invalid thinking: only",
        ),
    ),
)
