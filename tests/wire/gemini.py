"""Gemini's generateContent, strictly: what its documentation and its error messages say.

Sources: its API reference (GenerateContentRequest, Schema, FunctionCallingConfig), and the
guides on function calling, structured output, thinking and thought signatures.
"""

import base64
import json
import re
from typing import Any, Final

from tests.wire.server import (
    KEY,
    NUMBERS,
    Json,
    Reading,
    Refused,
    Reply,
    Strict,
    Turn,
    WireRequest,
    names,
)

MODEL: Final = "gemini-3-pro-preview"
SIGNATURE: Final = base64.b64encode(b"a thought that was signed here").decode()
SKIPS: Final = (
    "skip_thought_signature_validator",
    "context_engineering_is_the_way_to_go",
)
FIELDS: Final = names(
    "contents systemInstruction tools toolConfig safetySettings generationConfig "
    "cachedContent serviceTier"
)
CONFIG: Final = names(
    "temperature topP topK candidateCount maxOutputTokens stopSequences responseMimeType "
    "responseSchema responseJsonSchema thinkingConfig seed presencePenalty "
    "frequencyPenalty responseLogprobs logprobs responseModalities mediaResolution"
)
DATA: Final = (
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
)
PART: Final = frozenset((*DATA, "thought", "thoughtSignature", "mediaResolution"))
SCHEMA: Final = names(
    "type format title description nullable enum maxItems minItems properties required "
    "minProperties maxProperties minLength maxLength pattern example anyOf "
    "propertyOrdering default items minimum maximum"
)
DECLARATION: Final = names(
    "name description parameters parametersJsonSchema response responseJsonSchema"
)
NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
PLACE: Final = "/v1beta"
PATH: Final = re.compile(r"/models/([^:]+):(generateContent|streamGenerateContent\?alt=sse)")


def error(
    code: int,
    status: str,
    message: str,
    *details: Json,
) -> Refused:
    given = {
        "code": code,
        "message": message,
        "status": status,
        "details": list(details),
    }
    return Refused(code, {"error": given})


RATE_LIMITED: Final = error(
    429,
    "RESOURCE_EXHAUSTED",
    "You exceeded your current quota, please check your plan.",
    {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": "17s",
    },
)
OVERLOADED: Final = error(
    503, "UNAVAILABLE", "The model is overloaded. Please try again later."
)


def bad(message: str) -> Refused:
    return error(400, "INVALID_ARGUMENT", message)


def need(holds: object, message: str) -> None:
    if not holds:
        raise bad(message)


def known(
    given: Json,
    fields: frozenset[str],
    place: str,
) -> None:
    for name in given:
        need(
            name in fields,
            f"Invalid JSON payload received. Unknown name {name!r} at '{place}': "
            "Cannot find field.",
        )


def proto(value: Any, *, inside: bool = False) -> Any:
    """Names in camelCase: the JSON of protocol buffers takes both.

    Args:
        inside: data, not names.
    """
    if isinstance(value, list):
        return [proto(item, inside=inside) for item in value]
    if not isinstance(value, dict) or inside:
        return value
    found = {}
    for name, part in value.items():
        camel = re.sub(r"_(\w)", lambda m: m[1].upper(), name)
        free = camel in (
            "args",
            "response",
            "properties",
            "responseJsonSchema",
        )
        found[camel] = proto(part, inside=free)
    return found


def strict() -> Strict:
    return Strict(
        read,
        lambda request: "alt=sse" in request.path,
        whole,
        events,
        PLACE,
        bad,
    )


def read(asked: WireRequest) -> Reading:
    key = asked.headers.get("x-goog-api-key")
    if key is None:
        raise error(
            403,
            "PERMISSION_DENIED",
            "Method doesn't allow unregistered callers.",
        )
    if key != KEY:
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
        }
        raise error(400, "INVALID_ARGUMENT", "API key not valid.", info)
    return read_below(PLACE, asked)


def read_below(base: str, asked: WireRequest) -> Reading:
    """The request, whoever asks."""
    below = asked.path.startswith(base)
    place = PATH.fullmatch(asked.path.removeprefix(base)) if below else None
    if place is None or place[1] != MODEL:
        name = asked.path.rpartition("/")[2].partition(":")[0]
        raise error(
            404,
            "NOT_FOUND",
            f"models/{name} is not found for API version v1beta, or is not supported for "
            "generateContent. Call ListModels to see the list of available models.",
        )
    body = proto(asked.body)
    known(body, FIELDS, "")
    config = body.get("generationConfig", {})
    _config(config)
    tools = _tools(body.get("tools", []))
    system = body.get("systemInstruction", {"parts": []})
    known(system, frozenset({"role", "parts"}), "system_instruction")
    for part in system["parts"]:
        known(part, frozenset({"text"}), "system_instruction.parts")
        need(
            part["text"],
            "system_instruction.parts: contents must not be empty",
        )
    return Reading(
        system="\n".join(part["text"] for part in system["parts"]),
        turns=_turns(body["contents"]),
        tools=tools,
        choice=_choice(body.get("toolConfig", {}), tools),
        schema="responseJsonSchema" in config or "responseSchema" in config,
        thinks=config.get("thinkingConfig", {}).get("includeThoughts", False),
        stops=tuple(config.get("stopSequences", ())),
        limit=config.get("maxOutputTokens"),
        temperature=config.get("temperature"),
    )


def _config(config: Json) -> None:
    known(config, CONFIG, "generation_config")
    need(
        0 <= config.get("temperature", 1) <= 2,
        "temperature must be in the range [0.0, 2.0]",
    )
    need(
        len(config.get("stopSequences", [])) <= 5,
        "stop_sequences: at most 5",
    )
    need(
        config.get("candidateCount", 1) == 1,
        "candidate_count is not supported",
    )
    thinking = config.get("thinkingConfig", {})
    known(
        thinking,
        frozenset({"includeThoughts", "thinkingBudget", "thinkingLevel"}),
        "thinking",
    )
    both = "thinkingBudget" in thinking and "thinkingLevel" in thinking
    need(
        not both,
        "You can only set only one of thinking budget and thinking level.",
    )
    json_type = config.get("responseMimeType") == "application/json"
    for name in ("responseSchema", "responseJsonSchema"):
        need(
            name not in config or json_type,
            f"{name} needs response_mime_type application/json",
        )
    if "responseSchema" in config:
        _schema(config["responseSchema"])


def _tools(tools: list[Json]) -> tuple[str, ...]:
    names = []
    for tool in tools:
        known(
            tool,
            frozenset({"functionDeclarations", "googleSearch"}),
            "tools[0]",
        )
        for declared in tool.get("functionDeclarations", []):
            known(declared, DECLARATION, "tools[0].function_declarations[0]")
            need(NAME.fullmatch(declared["name"]), "Invalid function name.")
            if "parameters" in declared:
                _schema(declared["parameters"])
            names.append(declared["name"])
    need(len(set(names)) == len(names), "Duplicate function declaration found")
    return tuple(names)


def _schema(schema: Json) -> None:
    known(schema, SCHEMA, "parameters")
    for part in schema.get("properties", {}).values():
        _schema(part)
    for name in ("items",):
        if name in schema:
            _schema(schema[name])
    for part in schema.get("anyOf", []):
        _schema(part)
    if str(schema.get("type", "")).upper() == "OBJECT":
        missing = set(schema.get("required", [])) - set(schema.get("properties", {}))
        need(not missing, f"required[0]: property is not defined: {missing}")


def _choice(config: Json, tools: tuple[str, ...]) -> str:
    known(
        config,
        frozenset({"functionCallingConfig", "retrievalConfig"}),
        "tool_config",
    )
    given = config.get("functionCallingConfig", {})
    known(
        given,
        frozenset({"mode", "allowedFunctionNames"}),
        "function_calling_config",
    )
    mode = given.get("mode", "AUTO")
    allowed = given.get("allowedFunctionNames", [])
    need(not allowed or mode == "ANY", "allowed_function_names needs mode ANY")
    need(set(allowed) <= set(tools), "allowed_function_names: not declared")
    if mode == "ANY" and len(allowed) == 1:
        return str(allowed[0])
    return {"AUTO": "auto", "ANY": "any", "NONE": "none"}[mode]


def _turns(contents: list[Json]) -> tuple[Turn, ...]:
    need(contents, "contents is not specified")
    turns: list[Turn] = []
    calls = 0
    for content in contents:
        known(content, frozenset({"role", "parts"}), "contents")
        role: Any = content.get("role")
        parts: Any = content.get("parts")
        need(
            role in ("user", "model"),
            "Please use a valid role: user, model.",
        )
        need(parts, "contents.parts must not be empty.")
        for part in parts:
            _part(part)
        responses = [part for part in parts if "functionResponse" in part]
        need(
            len(responses) == calls,
            "Please ensure that the number of function response parts is equal to the number "
            "of function call parts of the function call turn.",
        )
        calls = sum("functionCall" in part for part in parts)
        need(
            not calls or turns,
            "a function call turn comes after a user turn",
        )
        turns.append(_read_turn(role, parts))
    need(
        contents[-1]["role"] == "user",
        "Please ensure that the last turn is a user turn",
    )
    _signed(contents)
    return tuple(turns)


def _part(part: Json) -> None:
    known(part, PART, "contents[0].parts[0]")
    data = [name for name in DATA if name in part]
    need(
        len(data) == 1,
        "required oneof field 'data' must have one initialized field",
    )
    if "text" in part:
        need(part["text"], "contents.parts: text must not be empty")
    if "inlineData" in part:
        base64.b64decode(part["inlineData"]["data"], validate=True)
        need(
            part["inlineData"]["mimeType"].startswith(("image/", "audio/", "application/pdf")),
            "Unsupported MIME type",
        )
    if "functionCall" in part:
        known(
            part["functionCall"],
            frozenset({"id", "name", "args"}),
            "function_call",
        )
        need(isinstance(part["functionCall"]["args"], dict), "args: Struct")
    if "functionResponse" in part:
        known(
            part["functionResponse"],
            frozenset({"id", "name", "response"}),
            "response",
        )
        need(
            part["functionResponse"]["name"],
            "function_response.name: Name cannot be empty.",
        )
        need(
            isinstance(part["functionResponse"]["response"], dict),
            "response: Struct",
        )


def _signed(contents: list[Json]) -> None:
    """Of the current turn, each step's first call bears the signature that it came with."""
    for content in reversed(contents):
        if content["role"] == "user" and "functionResponse" not in content["parts"][0]:
            return
        calls = [part for part in content["parts"] if "functionCall" in part]
        if calls:
            signature = calls[0].get("thoughtSignature")
            name = calls[0]["functionCall"]["name"]
            need(
                signature,
                f"Function call `{name}` is missing a `thought_signature`.",
            )
            plain = base64.b64decode(signature).decode(errors="replace")
            need(
                signature == SIGNATURE or plain in SKIPS,
                "Corrupted thought signature.",
            )


def _read_turn(role: str, parts: list[Json]) -> Turn:
    responses = [
        part["functionResponse"]["response"] for part in parts if "functionResponse" in part
    ]
    if responses:
        values = [next(iter(response.values()), "") for response in responses]
        texts = tuple(
            v if isinstance(v, str) else json.dumps(response)
            for v, response in zip(values, responses, strict=True)
        )
        return Turn("tool", results=texts)
    calls = tuple(
        (part["functionCall"]["name"], part["functionCall"]["args"])
        for part in parts
        if "functionCall" in part
    )
    texts_ = [part["text"] for part in parts if "text" in part and not part.get("thought")]
    signed = [part["thoughtSignature"] for part in parts if "thoughtSignature" in part]
    real = tuple(signature for signature in signed if signature == SIGNATURE)
    images = sum("inlineData" in part or "fileData" in part for part in parts)
    said = "".join(texts_)
    return Turn(
        "user" if role == "user" else "assistant",
        said,
        images,
        calls,
        signed=real,
    )


FINISH: Final = {
    "end": "STOP",
    "length": "MAX_TOKENS",
    "tools": "STOP",
    "sequence": "STOP",
    "refusal": "SAFETY",
}


def _parts(reply: Reply) -> list[Json]:
    found: list[Json] = []
    if reply.reasoning:
        found.append({"text": reply.reasoning, "thought": True})
    if reply.text:
        found.append({"text": reply.text})
    for number, (name, arguments) in enumerate(reply.calls):
        part: Json = {"functionCall": {"name": name, "args": arguments}}
        if number == 0:
            part["thoughtSignature"] = SIGNATURE
        found.append(part)
    return found


def _usage(reply: Reply) -> Json:
    usage = reply.usage
    found = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.output - usage.reasoning,
        "totalTokenCount": usage.input + usage.output,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.input}],
    }
    if usage.cached:
        found["cachedContentTokenCount"] = usage.cached
    if usage.reasoning:
        found["thoughtsTokenCount"] = usage.reasoning
    return found


def _answer(
    reply: Reply,
    parts: list[Json],
    finish: str | None,
) -> Json:
    candidate: Json = {
        "content": {"parts": parts, "role": "model"},
        "index": 0,
    }
    if finish is not None:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "usageMetadata": _usage(reply),
        "modelVersion": MODEL,
        "responseId": f"resp-{next(NUMBERS)}",
    }


def whole(reply: Reply) -> Json:
    return _answer(reply, _parts(reply), FINISH[reply.stop])


def events(reply: Reply) -> list[bytes]:
    pieces: list[Json] = []
    for part in _parts(reply):
        words = re.findall(r"\S+\s*|\s+", part.get("text", ""))
        pieces += [{**part, "text": word} for word in words] if "text" in part else [part]
    out = [_answer(reply, [piece], None) for piece in pieces]
    out.append(_answer(reply, [{"text": ""}], FINISH[reply.stop]))
    return [f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\n".encode() for event in out]
