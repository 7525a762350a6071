"""OpenAI's chat completions, strictly: a parameter that it does not know is refused.

Sources: its API reference (chat), and the errors `unknown_parameter` that people met.
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

MODEL: Final = "gpt-5.2"
# Models that take tools beside reasoning by Responses only, and whether they reason by default.
# https://github.com/openai/openai-openapi/issues/541, BerriAI/litellm#34569
TOOLS_AT_RESPONSES: Final = {"gpt-5.4": False, "gpt-5.6": True}
FIELDS: Final = names(
    "model messages max_tokens max_completion_tokens temperature top_p stop stream "
    "stream_options tools tool_choice parallel_tool_calls response_format "
    "reasoning_effort n seed user logprobs top_logprobs frequency_penalty "
    "presence_penalty logit_bias store metadata service_tier prompt_cache_key "
    "safety_identifier verbosity"
)
MESSAGE: Final = {
    "system": {"content", "name"},
    "developer": {"content", "name"},
    "user": {"content", "name"},
    "assistant": {
        "content",
        "name",
        "tool_calls",
        "refusal",
        "audio",
        "function_call",
    },
    "tool": {"content", "tool_call_id"},
}
PART: Final = {
    "text": {"text"},
    "image_url": {"image_url"},
    "refusal": {"refusal"},
    "file": {"file"},
    "input_audio": {"input_audio"},
}


def error(
    status: int,
    message: str,
    code: str | None = None,
    **headers: str,
) -> Refused:
    kind = "invalid_request_error" if status < 429 else "requests"
    given = {
        "message": message,
        "type": kind,
        "param": None,
        "code": code,
    }
    return Refused(
        status,
        {"error": given},
        {k.replace("_", "-"): v for k, v in headers.items()},
    )


RATE_LIMITED: Final = error(429, "Rate limit reached", "rate_limit_exceeded", retry_after="17")
OVERLOADED: Final = error(503, "The engine is currently overloaded, please try again later")


def bad(message: str) -> Refused:
    return error(400, message)


def need(holds: object, message: str) -> None:
    if not holds:
        raise bad(message)


def known(
    given: Json,
    fields: set[str] | frozenset[str],
    place: str = "",
) -> None:
    for name in given:
        if name not in fields:
            raise error(
                400,
                f"Unknown parameter: '{place}{name}'.",
                "unknown_parameter",
            )


def streams(asked: WireRequest) -> bool:
    return asked.body.get("stream") is True


def strict() -> Strict:
    return Strict(read, streams, whole, events, "/v1", bad)


def read(asked: WireRequest) -> Reading:
    if asked.headers.get("authorization") != f"Bearer {KEY}":
        raise error(401, "Incorrect API key provided", "invalid_api_key")
    body = asked.body
    models = {MODEL, *TOOLS_AT_RESPONSES}
    if asked.path != "/v1/chat/completions" or body.get("model") not in models:
        raise error(
            404,
            f"The model `{body.get('model')}` does not exist",
            "model_not_found",
        )
    known(body, FIELDS)
    need(
        "max_tokens" not in body,
        "Unsupported parameter: use 'max_completion_tokens'",
    )
    temperature = body.get("temperature")
    need(
        temperature is None or 0 <= temperature <= 2,
        "Invalid 'temperature': 0 to 2",
    )
    _check_habits(body)
    form = (body.get("response_format") or {}).get("json_schema") or {}
    if form.get("strict"):
        check_strict(form["schema"], f"response_format '{form['name']}'")
    tools = _tools(body.get("tools", []))
    if tools:
        check_reasoning(body)
    stop = body.get("stop") or ()
    return Reading(
        system="\n".join(
            _text(message["content"])
            for message in body["messages"]
            if message["role"] in ("system", "developer")
        ),
        turns=_turns(body["messages"]),
        tools=tools,
        choice=_choice(body.get("tool_choice", "auto"), tools),
        serial=body.get("parallel_tool_calls") is False,
        schema=(body.get("response_format") or {}).get("type") == "json_schema",
        thinks=body.get("reasoning_effort") is not None,
        stops=(stop,) if isinstance(stop, str) else tuple(stop),
        limit=body.get("max_completion_tokens"),
        temperature=temperature,
    )


def _check_habits(body: Json) -> None:
    """Refuses forms that clients write out of habit, and that other servers take."""
    need(
        body.get("parallel_tool_calls", False) is not None,
        "Invalid type for 'parallel_tool_calls': expected a boolean, but got null instead.",
    )
    need(
        body.get("tools") or "parallel_tool_calls" not in body,
        "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when "
        "'tools' are specified.",
    )
    stop = body.get("stop")
    need(
        not isinstance(stop, list) or len(stop) <= 4,
        "Invalid 'stop': array too long. Expected an array with maximum length 4.",
    )
    for number, message in enumerate(body["messages"]):
        need(
            message.get("content") != [],
            f"Invalid 'messages[{number}].content': empty array. Expected an array with "
            "minimum length 1, but got an empty array instead.",
        )
    if body.get("reasoning_effort", "none") == "none":
        return
    for name in ("temperature", "top_p"):
        need(
            body.get(name, 1) == 1,
            f"Unsupported parameter: '{name}' is not supported with this model.",
        )


def check_reasoning(body: Json) -> None:
    """Refuses tools beside reasoning in the words of the model."""
    model = body["model"]
    reasons = TOOLS_AT_RESPONSES.get(model)
    effort = body.get("reasoning_effort")
    if reasons is None or effort == "none" or not (effort or reasons):
        return
    words = f"Function tools with reasoning_effort are not supported for {model} in "
    ways = (
        "/v1/chat/completions. To use function tools, use /v1/responses or set "
        "reasoning_effort to 'none'."
        if reasons
        else "/v1/chat/completions. Please use /v1/responses instead."
    )
    refused = error(400, words + ways)
    refused.body["error"]["param"] = "reasoning_effort"
    raise refused


def check_strict(schema: Json, what: str, path: tuple[str, ...] = ()) -> None:
    """Refuses a schema that does not meet the demands of `strict`."""
    where = f"Invalid schema for {what}: In context={path}, "
    properties = schema.get("properties")
    if schema.get("type") == "object" or properties is not None:
        need(
            schema.get("additionalProperties") is False,
            f"{where}'additionalProperties' is required to be supplied and to be false.",
        )
        missing = sorted({*(properties or {})} - {*schema.get("required", ())})
        extra = sorted({*schema.get("required", ())} - {*(properties or {})})
        need(
            not extra,
            f"{where}'required' is required to be supplied and to be an array including "
            f"every key in properties. Extra required key '{''.join(extra[:1])}' supplied.",
        )
        need(
            not missing,
            f"{where}'required' is required to be supplied and to be an array including "
            f"every key in properties. Missing '{missing[:1]}'.",
        )
    need(
        schema.get("type") != "array" or "items" in schema,
        f"{where}array schema missing items.",
    )
    beside = sorted({*schema} - {"$ref"}) if "$ref" in schema else []
    need(not beside, f"{where}$ref cannot have keywords {beside}.")
    for name, inner in (properties or {}).items():
        check_strict(inner, what, (*path, "properties", name))
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            check_strict(schema[name], what, (*path, name))
    for at, inner in enumerate(schema.get("anyOf", ())):
        check_strict(inner, what, (*path, "anyOf", str(at)))
    for name, inner in schema.get("$defs", {}).items():
        check_strict(inner, what, (*path, "$defs", name))


def _tools(tools: list[Json]) -> tuple[str, ...]:
    for tool in tools:
        known(tool, {"type", "function"}, "tools[0].")
        known(
            tool["function"],
            {"name", "description", "parameters", "strict"},
            "tools[0].",
        )
        function = tool["function"]
        need(
            "properties" in (function.get("parameters") or {"properties": {}}),
            f"Invalid schema for function '{function['name']}': In context=(), object schema "
            "missing properties",
        )
        if function.get("strict"):
            check_strict(function["parameters"], f"function '{function['name']}'")
    return tuple(tool["function"]["name"] for tool in tools)


def _choice(choice: Any, tools: tuple[str, ...]) -> str:
    if isinstance(choice, str):
        return {"required": "any"}.get(choice, choice)
    need(
        choice["function"]["name"] in tools,
        "Tool choice not found in 'tools'",
    )
    return str(choice["function"]["name"])


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content or () if part["type"] == "text")


def _image(url: str) -> None:
    head, comma, data = url.partition(";base64,")
    if head.startswith("data:"):
        need(
            comma and head.startswith("data:image/"),
            "Invalid MIME type. Only image types",
        )
        base64.b64decode(data, validate=True)
    else:
        need(url.startswith(("https://", "http://")), "Invalid image URL")


def _turns(messages: list[Json]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    waiting: list[str] = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]."
        role = message["role"]
        known(message, MESSAGE[role] | {"role"}, place)
        content = message.get("content")
        for at, part in enumerate(content if isinstance(content, list) else ()):
            known(part, PART[part["type"]] | {"type"}, f"{place}content[{at}].")
            if part["type"] == "image_url":
                _image(part["image_url"]["url"])
        if role == "tool":
            need(
                message["tool_call_id"] in waiting,
                "'tool_calls' must precede",
            )
            waiting.remove(message["tool_call_id"])
            if turns[-1].role == "tool":
                results = (*turns.pop().results, _text(content))
            else:
                results = (_text(content),)
            turns.append(Turn("tool", results=results))
            continue
        need(
            not waiting,
            f"tool_call_ids did not have response messages: {waiting}",
        )
        if role in ("system", "developer"):
            continue
        calls = message.get("tool_calls") or []
        for call in calls:
            known(call, {"id", "type", "function"}, f"{place}tool_calls[0].")
            need(
                len(call["id"]) <= 40,
                f"Invalid '{place}tool_calls[0].id': string too long.",
            )
        waiting = [call["id"] for call in calls]
        made = tuple(
            (c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls
        )
        parts = content if isinstance(content, list) else []
        images = sum(part["type"] == "image_url" for part in parts)
        turns.append(Turn(role, _text(content), images, made))
    need(
        not waiting,
        f"tool_call_ids did not have response messages: {waiting}",
    )
    return tuple(turns)


FINISH: Final = {
    "end": "stop",
    "length": "length",
    "tools": "tool_calls",
    "sequence": "stop",
    "refusal": "content_filter",
}


def _calls(reply: Reply) -> list[Json]:
    return [
        {
            "id": f"call_{next(NUMBERS)}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for name, arguments in reply.calls
    ]


def _usage(reply: Reply) -> Json:
    usage = reply.usage
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def whole(reply: Reply) -> Json:
    message: Json = {
        "role": "assistant",
        "content": reply.text or None,
        "refusal": None,
    }
    if reply.calls:
        message["tool_calls"] = _calls(reply)
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": FINISH[reply.stop],
    }
    head = {
        "id": f"chatcmpl-{next(NUMBERS)}",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
    }
    return {
        **head,
        "choices": [{**choice, "logprobs": None}],
        "usage": _usage(reply),
    }


def events(reply: Reply) -> list[bytes]:
    head = {
        "id": f"chatcmpl-{next(NUMBERS)}",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
    }

    def chunk(delta: Json, finish: str | None = None) -> Json:
        return {
            **head,
            "choices": [
                {
                    "index": 0,
                    "delta": delta,
                    "finish_reason": finish,
                }
            ],
        }

    out = [chunk({"role": "assistant", "content": ""})]
    out += [chunk({"content": word}) for word in re.findall(r"\S+\s*|\s+", reply.text)]
    for number, call in enumerate(_calls(reply)):
        empty = {**call["function"], "arguments": ""}
        out.append(
            chunk(
                {
                    "tool_calls": [
                        {
                            **call,
                            "index": number,
                            "function": empty,
                        }
                    ]
                }
            )
        )
        raw = call["function"]["arguments"]
        for at in range(0, len(raw), 5):
            piece = {
                "index": number,
                "function": {"arguments": raw[at : at + 5]},
            }
            out.append(chunk({"tool_calls": [piece]}))
    out.append(chunk({}, FINISH[reply.stop]))
    out.append(
        {
            **head,
            "choices": [],
            "usage": _usage(reply),
        }
    )
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode() for event in out]
    return [*lines, b"data: [DONE]\n\n"]
