"""Clients in the middle of a tool loop, one for each protocol: each keeps its history as the
official SDK does, and reads its answers whole or streamed.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, cast

from anthropic.lib.streaming._messages import accumulate_event

from harness.providers.models.capabilities import Endpoint
from router.protocols.event_stream import SsePayloads
from tests.wire.conversations import PIXEL
from tests.wire.server import Json

Call = tuple[str, Json]
QUESTION: Final = "How warm is it in each of the cities?"
SCHEMA: Final = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
}


class Feature(StrEnum):
    """What a conversation has beside text and one call a turn."""

    THINKING = "thinking"
    PARALLEL = "parallel"
    HOSTED = "hosted"
    IMAGE = "image"
    ENCRYPTED = "encrypted"


class ToolClient(ABC):
    """hosted: its provider runs a search of its own in the first answer."""

    def __init__(self, feature: Feature, *, hosted: bool) -> None:
        self.feature = feature
        self.hosted = hosted and feature is Feature.HOSTED
        self.history: list[Json] = []

    def body(self, route: str, *, stream: bool) -> Json:
        return {"model": route, **self.fields()} | ({"stream": True} if stream else {})

    @abstractmethod
    def fields(self) -> Json: ...

    @abstractmethod
    def hear(self, raw: bytes, *, stream: bool) -> tuple[str, list[Call]]:
        """Reads an answer, and enters it with the results of its calls. Returns its text and
        calls.
        """


def events(raw: bytes) -> list[Json]:
    return [json.loads(line) for line in SsePayloads().read(raw) if line != b"[DONE]"]


class ChatClient(ToolClient):
    def __init__(self, feature: Feature, *, hosted: bool) -> None:
        super().__init__(feature, hosted=hosted)
        content: Any = QUESTION
        if feature is Feature.IMAGE:
            url = {"url": f"data:image/png;base64,{PIXEL}"}
            content = [
                {"type": "text", "text": QUESTION},
                {"type": "image_url", "image_url": url},
            ]
        self.history = [{"role": "user", "content": content}]

    def fields(self) -> Json:
        function = {"name": "weather", "parameters": SCHEMA}
        found: Json = {"messages": self.history, "max_tokens": 4096}
        found["tools"] = [{"type": "function", "function": function}]
        return found | ({"reasoning_effort": "low"} if self.feature is Feature.THINKING else {})

    def hear(self, raw: bytes, *, stream: bool) -> tuple[str, list[Call]]:
        if stream:
            assert raw.endswith(b"data: [DONE]\n\n")
            message, end = _chat(events(raw))
        else:
            (choice,) = json.loads(raw)["choices"]
            message = choice["message"]
            end = choice["finish_reason"]
        assert end in ("stop", "tool_calls")
        self.history.append(message)
        calls = message.get("tool_calls") or []
        for call in calls:
            result = {
                "role": "tool",
                "tool_call_id": call["id"],
                "content": "9 C",
            }
            self.history.append(result)
        made = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]
        return message.get("content") or "", made


def _chat(chunks: list[Json]) -> tuple[Json, str | None]:
    """A message of its pieces, with what providers add to it; and why it ended."""
    message: Json = {"role": "assistant", "content": ""}
    end: str | None = None
    calls: dict[int, Json] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            end = choice.get("finish_reason")
            message["content"] += delta.get("content") or ""
            for name in ("thinking_blocks", "extra_content"):
                if delta.get(name):
                    message[name] = delta[name]
            if delta.get("reasoning_content"):
                thought = message.setdefault("reasoning_content", "")
                message["reasoning_content"] = thought + delta["reasoning_content"]
            for piece in delta.get("tool_calls") or ():
                place = piece.pop("index")
                call = calls.setdefault(place, {**piece, "function": {"arguments": ""}})
                call["function"]["name"] = (
                    call["function"].get("name") or piece["function"]["name"]
                )
                call["function"]["arguments"] += piece["function"].get("arguments") or ""
    return message | ({"tool_calls": list(calls.values())} if calls else {}), end


class MessageClient(ToolClient):
    def __init__(self, feature: Feature, *, hosted: bool) -> None:
        super().__init__(feature, hosted=hosted)
        content: list[Json] = [{"type": "text", "text": QUESTION}]
        if feature is Feature.IMAGE:
            source = {
                "type": "base64",
                "media_type": "image/png",
                "data": PIXEL,
            }
            content.append({"type": "image", "source": source})
        self.history = [{"role": "user", "content": content}]

    def fields(self) -> Json:
        found: Json = {"messages": self.history, "max_tokens": 4096}
        found["tools"] = [{"name": "weather", "input_schema": SCHEMA}]
        if self.feature is Feature.HOSTED:
            found["tools"].append({"type": "web_search_20250305", "name": "web_search"})
        if self.feature in (Feature.THINKING, Feature.ENCRYPTED):
            found["thinking"] = {"type": "enabled", "budget_tokens": 2048}
        return found

    def hear(self, raw: bytes, *, stream: bool) -> tuple[str, list[Call]]:
        content, end = (_blocks if stream else _message)(raw)
        assert end in ("end_turn", "tool_use")
        if self.hosted:
            self.hosted = False
            content = [*_SEARCH_BLOCKS, *content]
        self.history.append({"role": "assistant", "content": content})
        uses = [block for block in content if block["type"] == "tool_use"]
        results = [
            {
                "type": "tool_result",
                "tool_use_id": use["id"],
                "content": "9 C",
            }
            for use in uses
        ]
        if results:
            self.history.append({"role": "user", "content": results})
        text = "".join(block["text"] for block in content if block["type"] == "text")
        return text, [(use["name"], use["input"]) for use in uses]


_SEARCH_BLOCKS: Final[list[Json]] = [
    {
        "type": "server_tool_use",
        "id": "srv_1",
        "name": "web_search",
        "input": {"query": "warm"},
    },
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srv_1",
        "content": [
            {
                "type": "web_search_result",
                "title": "Weather",
                "url": "https://weather.example",
            }
        ],
    },
]


def _message(raw: bytes) -> tuple[list[Json], str]:
    message = json.loads(raw)
    return message["content"], message["stop_reason"]


def accumulated(raw: bytes) -> Any:
    """A stream's message, as the official client puts it together."""
    message: Any = None
    buffers: dict[int, bytes] = {}
    for event in events(raw):
        message = accumulate_event(
            event=cast("Any", event),
            current_snapshot=message,
            json_bufs=buffers,
        )
    return message


def _blocks(raw: bytes) -> tuple[list[Json], str]:
    """The blocks of a stream, and why it ended."""
    assert events(raw)[-1]["type"] == "message_stop"
    message = accumulated(raw).model_dump(exclude_none=True)
    return message["content"], message["stop_reason"]


class ResponseClient(ToolClient):
    def __init__(self, feature: Feature, *, hosted: bool) -> None:
        super().__init__(feature, hosted=hosted)
        content: list[Json] = [{"type": "input_text", "text": QUESTION}]
        if feature is Feature.IMAGE:
            url = f"data:image/png;base64,{PIXEL}"
            content.append({"type": "input_image", "image_url": url})
        self.history = [{"role": "user", "content": content}]

    def fields(self) -> Json:
        found: Json = {"input": self.history, "store": False}
        found["tools"] = [
            {
                "type": "function",
                "name": "weather",
                "parameters": SCHEMA,
            }
        ]
        if self.feature is Feature.HOSTED:
            found["tools"].append({"type": "web_search"})
        if self.feature in (Feature.THINKING, Feature.ENCRYPTED):
            found["reasoning"] = {"effort": "low", "summary": "auto"}
        if self.feature is Feature.ENCRYPTED:
            found["include"] = ["reasoning.encrypted_content"]
        return found

    def hear(self, raw: bytes, *, stream: bool) -> tuple[str, list[Call]]:
        whole = events(raw)[-1]["response"] if stream else json.loads(raw)
        assert whole["status"] == "completed"
        output = whole["output"]
        if self.hosted:
            self.hosted = False
            output = [_SEARCH_ITEM, *output]
        self.history += output
        calls = [item for item in output if item["type"] == "function_call"]
        for call in calls:
            result = {
                "type": "function_call_output",
                "call_id": call["call_id"],
            }
            self.history.append({**result, "output": "9 C"})
        said = [item["content"] for item in output if item["type"] == "message"]
        text = "".join(part["text"] for content in said for part in content)
        return text, [(call["name"], json.loads(call["arguments"])) for call in calls]


_SEARCH_ITEM: Final[Json] = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "warm"},
}
CLIENTS: Final[Mapping[Endpoint, type[ToolClient]]] = {
    Endpoint.CHAT: ChatClient,
    Endpoint.MESSAGES: MessageClient,
    Endpoint.RESPONSES: ResponseClient,
}
