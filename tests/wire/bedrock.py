"""Bedrock's Converse, strictly: what its API reference and its error messages say."""

import base64
import binascii
import json
import re
import struct
from typing import Any, Final
from urllib.parse import unquote

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

MODEL: Final = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
SIGNATURE: Final = "c2lnbmVkIGJ5IGJlZHJvY2s="
FIELDS: Final = names(
    "messages system inferenceConfig toolConfig guardrailConfig requestMetadata outputConfig "
    "additionalModelRequestFields additionalModelResponseFieldPaths performanceConfig"
)
CONFIG: Final = names("maxTokens temperature topP stopSequences")
CONTENT: Final = names("text image document toolUse toolResult reasoningContent cachePoint")
PATH: Final = re.compile(r"/model/([^/]+)/(converse|converse-stream)")
DOCUMENTS: Final = names("pdf csv doc docx xls xlsx html txt md")
STOPS: Final = {
    "end": "end_turn",
    "length": "max_tokens",
    "tools": "tool_use",
    "sequence": "stop_sequence",
    "refusal": "content_filtered",
}


def error(
    status: int,
    name: str,
    message: str,
) -> Refused:
    return Refused(status, {"message": message}, {"x-amzn-errortype": name})


def bad(message: str) -> Refused:
    return error(400, "ValidationException", message)


def need(holds: object, message: str) -> None:
    if not holds:
        raise bad(message)


def known(
    given: Json,
    fields: frozenset[str],
    place: str,
) -> None:
    extra = sorted(set(given) - fields)
    need(
        not extra,
        f"The model returned: extraneous key {extra} is not permitted at {place}",
    )


def strict() -> Strict:
    found = Strict(
        read,
        lambda request: request.path.endswith("-stream"),
        whole,
        events,
        "",
        bad,
    )
    found.stream_type = "application/vnd.amazon.eventstream"
    return found


def read(asked: WireRequest) -> Reading:
    if asked.headers.get("authorization") != f"Bearer {KEY}":
        raise error(
            403,
            "AccessDeniedException",
            "Authentication failed: API Key not valid.",
        )
    place = PATH.fullmatch(asked.path)
    if place is None or unquote(place[1]) != MODEL or ":" in place[1]:
        said = "Could not resolve the foundation model from the provided model identifier."
        raise error(404, "ResourceNotFoundException", said)
    body = asked.body
    known(body, FIELDS, "#")
    config = body.get("inferenceConfig", {})
    known(config, CONFIG, "#/inferenceConfig")
    need(0 <= config.get("temperature", 1) <= 1, "temperature: at most 1")
    need(
        not {"temperature", "topP"} <= config.keys(),
        "The model returned the following errors: `temperature` and `top_p` cannot both be "
        "specified for this model. Please use only one.",
    )
    more = body.get("additionalModelRequestFields", {})
    known(
        more,
        names("thinking tool_choice top_k anthropic_beta"),
        "#/additional",
    )
    tools, choice = _tools(body)
    system = [block["text"] for block in body.get("system", []) if "text" in block]
    thinks = more.get("thinking", {}).get("type") == "enabled"
    if thinks:
        budget = more["thinking"]["budget_tokens"]
        need(
            1024 <= budget < config.get("maxTokens", 10**6),
            "budget_tokens < max_tokens",
        )
        need(
            "temperature" not in config,
            "temperature may only be set to 1 with thinking",
        )
    text = json.dumps(body)
    return Reading(
        system="\n".join(system),
        turns=_turns(body["messages"], tools),
        tools=tools,
        choice=choice,
        schema="outputConfig" in body,
        thinks=thinks,
        stops=tuple(config.get("stopSequences", ())),
        marks=text.count('"cachePoint"'),
        limit=config.get("maxTokens"),
        temperature=config.get("temperature"),
    )


def _tools(body: Json) -> tuple[tuple[str, ...], str]:
    given = body.get("toolConfig")
    if given is None:
        return (), "auto"
    known(given, names("tools toolChoice"), "#/toolConfig")
    need(given["tools"], "toolConfig.tools: at least 1")
    found = []
    for tool in given["tools"]:
        known(tool, names("toolSpec cachePoint"), "#/toolConfig/tools")
        known(
            tool["toolSpec"],
            names("name description inputSchema strict"),
            "toolSpec",
        )
        need(
            re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool["toolSpec"]["name"]),
            "toolSpec.name",
        )
        need(
            tool["toolSpec"]["inputSchema"]["json"]["type"] == "object",
            "inputSchema.type",
        )
        found.append(tool["toolSpec"]["name"])
    choice = given.get("toolChoice", {"auto": {}})
    known(choice, names("auto any tool"), "#/toolConfig/toolChoice")
    need(len(choice) == 1, "toolChoice is a union")
    return tuple(found), choice["tool"]["name"] if "tool" in choice else next(iter(choice))


def _document(given: Json) -> None:
    known(given, names("format name source"), "#/messages/content/document")
    need(given["format"] in DOCUMENTS, "document.format: Value not in enum")
    need(
        re.fullmatch(r"[A-Za-z0-9 ()\[\]-]{1,200}", given["name"]),
        "The file name can only contain alphanumeric characters, whitespace characters, "
        "hyphens, parentheses, and square brackets.",
    )
    base64.b64decode(given["source"]["bytes"], validate=True)


def _turns(messages: list[Json], tools: tuple[str, ...]) -> tuple[Turn, ...]:
    need(
        messages and messages[0]["role"] == "user",
        "A conversation must start with a user",
    )
    turns: list[Turn] = []
    calls: set[str] = set()
    for number, message in enumerate(messages):
        known(message, names("role content"), "#/messages")
        role = ("user", "assistant")[number % 2]
        need(
            message["role"] == role,
            "roles must alternate between user and assistant",
        )
        need(message["content"], "The content field is empty")
        for block in message["content"]:
            known(block, CONTENT, "#/messages/content")
            need(len(block) == 1, "ContentBlock is a union")
            need(
                block.get("text", "x").strip(),
                "text content blocks must be non-empty",
            )
            if "image" in block:
                base64.b64decode(block["image"]["source"]["bytes"], validate=True)
            if "document" in block:
                _document(block["document"])
        need(
            not any("document" in block for block in message["content"])
            or any("text" in block for block in message["content"]),
            "A text block must be included when using documents.",
        )
        results = [b["toolResult"] for b in message["content"] if "toolResult" in b]
        need(
            {result["toolUseId"] for result in results} == calls,
            "Expected toolResult blocks for the toolUse blocks of the previous turn",
        )
        uses = [b["toolUse"] for b in message["content"] if "toolUse" in b]
        calls = {use["toolUseId"] for use in uses}
        need(not calls or tools, "The toolConfig field must be defined")
        turns += _read(role, message["content"], results, uses)
    return tuple(turns)


def _read(
    role: str,
    content: list[Json],
    results: list[Json],
    uses: list[Json],
) -> list[Turn]:
    found = []
    if results:
        texts = tuple("".join(c.get("text", "") for c in r["content"]) for r in results)
        found.append(Turn("tool", results=texts))
    said = "".join(block.get("text", "") for block in content)
    thought = [
        b["reasoningContent"]["reasoningText"] for b in content if "reasoningContent" in b
    ]
    signed = tuple(signature["signature"] for signature in thought)
    need(
        all(signature == SIGNATURE for signature in signed),
        "Invalid signature in thinking block",
    )
    calls = tuple((use["name"], use["input"]) for use in uses)
    images = sum("image" in block for block in content)
    if said or images or calls or signed:
        found.append(Turn(role, said, images, calls, signed=signed))
    return found


def _usage(reply: Reply) -> Json:
    usage = reply.usage
    return {
        "inputTokens": usage.input - usage.cached - usage.written,
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output,
        "cacheReadInputTokens": usage.cached,
        "cacheWriteInputTokens": usage.written,
    }


def _stop(reply: Reply) -> Json:
    found: Json = {"stopReason": STOPS[reply.stop]}
    if reply.usage.reasoning:
        details = {"output_tokens_details": {"thinking_tokens": reply.usage.reasoning}}
        found["additionalModelResponseFields"] = {"usage": details}
    return found


def whole(reply: Reply) -> Json:
    content: list[Any] = []
    if reply.reasoning:
        text = {"text": reply.reasoning, "signature": SIGNATURE}
        content.append({"reasoningContent": {"reasoningText": text}})
    if reply.text:
        content.append({"text": reply.text})
    for name, given in reply.calls:
        use = {
            "toolUseId": f"tooluse_{next(NUMBERS)}",
            "name": name,
            "input": given,
        }
        content.append({"toolUse": use})
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        **_stop(reply),
        "usage": _usage(reply),
        "metrics": {"latencyMs": 5},
    }


def framed(
    name: str,
    body: Json,
    kind: str = "event",
) -> bytes:
    """A message of `application/vnd.amazon.eventstream`."""
    given = {
        f":{kind}-type": name,
        ":content-type": "application/json",
        ":message-type": kind,
    }
    headers = b"".join(
        struct.pack("!B", len(k)) + k.encode() + struct.pack("!BH", 7, len(v)) + v.encode()
        for k, v in given.items()
    )
    payload = json.dumps(body, ensure_ascii=False).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    start = prelude + struct.pack("!I", binascii.crc32(prelude)) + headers + payload
    return start + struct.pack("!I", binascii.crc32(start))


def events(reply: Reply) -> list[bytes]:
    out = [framed("messageStart", {"role": "assistant"})]
    blocks: list[tuple[Json | None, list[Json]]] = []
    if reply.reasoning:
        words = re.findall(r"\S+\s*", reply.reasoning)
        pieces = [{"reasoningContent": {"text": word}} for word in words]
        blocks.append((None, [*pieces, {"reasoningContent": {"signature": SIGNATURE}}]))
    if reply.text:
        words = re.findall(r"\S+\s*|\s+", reply.text)
        blocks.append((None, [{"text": word} for word in words]))
    for name, given in reply.calls:
        raw = json.dumps(given)
        start = {
            "toolUse": {
                "toolUseId": f"tooluse_{next(NUMBERS)}",
                "name": name,
            }
        }
        blocks.append(
            (
                start,
                [{"toolUse": {"input": piece}} for piece in (raw[:5], raw[5:])],
            )
        )
    for index, (begun, deltas) in enumerate(blocks):
        at = {"contentBlockIndex": index}
        if begun:
            out.append(framed("contentBlockStart", {**at, "start": begun}))
        out += [framed("contentBlockDelta", {**at, "delta": delta}) for delta in deltas]
        out.append(framed("contentBlockStop", at))
    out.append(framed("messageStop", _stop(reply)))
    out.append(framed("metadata", {"usage": _usage(reply), "metrics": {"latencyMs": 5}}))
    return out
