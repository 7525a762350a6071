"""Writes answer blocks as an OpenAI response, which repeats the request's settings.

The last step of a translation: `chat.answer_reader` reads the chat's answer. The ids of the
items show later requests which target made an item (`router.conversation.intake`). The
router stores no response, so `store` is always false.
"""

from collections.abc import Mapping
from typing import Final

from router.conversation.intake import own_id
from router.frame.body import to_json
from router.protocols.answers import (
    NO_USAGE,
    AnswerBlock,
    AnswerEnd,
    AnswerHead,
    BlockKind,
    FinishReason,
    WholeAnswer,
)
from router.protocols.event_stream import write_event
from router.protocols.responses.response_request import (
    ResponseTools,
    custom_text,
)

# Settings that a response repeats from its request, with their defaults.
_REPEATED_SETTINGS: Final[Mapping[str, object]] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "user": None,
}
_INCOMPLETE_REASONS: Final[Mapping[FinishReason, str]] = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.FILTERED: "content_filter",
}
_CUSTOM_INPUT_EVENT: Final = "response.custom_tool_call_input"
Item = dict[str, object]


class ResponseShape:
    """Builds the response to a request. maker: the target that made the reasoning."""

    def __init__(
        self,
        request: Mapping[str, object],
        tools: ResponseTools,
        maker: str = "",
    ) -> None:
        self._request = request
        self._tools = tools
        self._maker = maker

    def whole(self, answer: WholeAnswer) -> bytes:
        """Writes a whole answer as a response. Consecutive texts become parts of one
        message.
        """
        items: list[Item] = []
        for block in answer.blocks:
            if _joins_last_item(items, block):
                parts = items[-1]["content"]
                if isinstance(parts, list):
                    parts.append(_write_part(block))
            else:
                items.append(self.item(block, self.own_id(block, answer.head, len(items))))
        return to_json(self.response(answer.head, items, answer.end)).encode()

    def response(
        self,
        head: AnswerHead,
        output: list[Item],
        end: AnswerEnd | None,
    ) -> dict[str, object]:
        """Returns the response around its output.

        Args:
            end: None before the answer's end.
        """
        reason = end.word or _INCOMPLETE_REASONS.get(end.finish) if end else None
        # A response with a refusal part is complete.
        if reason == "content_filter" and _has_refusal(output):
            reason = None
        tier = (end.usage.tier if end and end.usage else "") or head.tier
        status = "incomplete" if reason else "completed" if end else "in_progress"
        repeated_settings = {
            name: default if self._request.get(name) is None else self._request[name]
            for name, default in _REPEATED_SETTINGS.items()
        }
        return {
            "id": own_id("resp", self._maker, head.id),
            "object": "response",
            "created_at": head.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": head.model,
            "output": output,
            "previous_response_id": None,
            **repeated_settings,
            "store": False,
            **({"service_tier": tier} if tier else {}),
            "truncation": "disabled",
            "usage": response_usage(end) if end and end.usage else None,
        }

    def own_id(
        self,
        block: AnswerBlock,
        head: AnswerHead,
        number: int,
    ) -> str:
        """Returns the id of an item.

        Args:
            number: its place in the output.
        """
        prefix = {BlockKind.CALL: "fc", BlockKind.THINKING: "rs"}.get(block.kind, "msg")
        if self.is_custom(block):
            prefix = "ctc"
        return own_id(prefix, self._maker, f"{head.id}_{number}")

    def is_custom(self, block: AnswerBlock) -> bool:
        """Returns whether a block calls a custom tool, whose input is text and not JSON."""
        return block.kind is BlockKind.CALL and self._tools.origin(block.name).is_custom

    def item(self, block: AnswerBlock, id_: str) -> Item:
        """Returns the complete output item of a block."""
        match block.kind:
            case BlockKind.CALL:
                return self._call_item(block, id_)
            case BlockKind.THINKING:
                summary = [{"type": "summary_text", "text": block.text}]
                sealed = {"encrypted_content": block.sealed} if block.sealed else {}
                return {
                    "id": id_,
                    "type": "reasoning",
                    "summary": summary,
                    **sealed,
                }
            case _:
                return {
                    "id": id_,
                    "type": "message",
                    "status": "completed",
                    "role": "assistant",
                    "content": [_write_part(block)],
                }

    def _call_item(self, block: AnswerBlock, id_: str) -> Item:
        origin = self._tools.origin(block.name)
        call: Item = {
            "id": id_,
            "status": "completed",
            "call_id": block.call_id,
            "name": origin.name,
        }
        if origin.is_custom:
            return call | {
                "type": "custom_tool_call",
                "input": custom_text(block.text),
            }
        if origin.namespace:
            call["namespace"] = origin.namespace
        return call | {"type": "function_call", "arguments": block.text}


class ResponseEventWriter:
    """Writes a stream's events, numbered in order. shape: builds the items and the
    response.
    """

    def __init__(self, shape: ResponseShape) -> None:
        self._shape = shape
        self._number = -1
        self._head = AnswerHead("", "")
        self._output: list[Item] = []
        self._block = AnswerBlock(BlockKind.TEXT)
        self._id = ""
        self._texts: list[str] = []

    def begin(self, head: AnswerHead) -> bytes:
        self._head = head
        response = self._shape.response(head, [], None)
        return self._write_event(
            "response.created", {"response": response}
        ) + self._write_event("response.in_progress", {"response": response})

    def open(self, block: AnswerBlock) -> bytes:
        self._block = block
        self._texts = []
        self._id = self._shape.own_id(block, self._head, len(self._output))
        item = {
            **self._shape.item(block, self._id),
            "status": "in_progress",
        }
        if block.kind is BlockKind.CALL:
            field = "input" if self._shape.is_custom(block) else "arguments"
            return self._write_added(item | {field: ""})
        if block.kind is BlockKind.THINKING:
            part = {"type": "summary_text", "text": ""}
            return self._write_added(item | {"summary": []}) + self._write_event(
                "response.reasoning_summary_part.added",
                {**self._place_members(), "part": part},
            )
        return self._write_added(item | {"content": []}) + self._write_event(
            "response.content_part.added",
            {**self._place_members(), "part": _write_part(block)},
        )

    def more(self, text: str) -> bytes:
        self._texts.append(text)
        if self._shape.is_custom(self._block):
            return b""  # the text is in a JSON object that must be complete first
        return self._write_event(
            f"{self._event_name}.delta",
            {
                **self._place_members(),
                "delta": text,
                **self._logprobs_member,
            },
        )

    def close(self, sealed: str = "") -> bytes:
        block = self._block._replace(text="".join(self._texts), sealed=sealed)
        if block.kind is BlockKind.CALL and not block.text:
            block = block._replace(text="{}")
        item = self._shape.item(block, self._id)
        place = self._place_members()
        if self._shape.is_custom(block):
            text = {"input": item["input"]}
            out = self._write_event(
                f"{_CUSTOM_INPUT_EVENT}.delta", {**place, "delta": item["input"]}
            )
            out += self._write_event(f"{_CUSTOM_INPUT_EVENT}.done", {**place, **text})
        elif block.kind is BlockKind.CALL:
            call = {
                **place,
                "arguments": block.text,
                "name": block.name,
            }
            out = self._write_event(f"{self._event_name}.done", call)
        elif block.kind is BlockKind.THINKING:
            part = {"type": "summary_text", "text": block.text}
            out = self._write_event(f"{self._event_name}.done", {**place, "text": block.text})
            out += self._write_event(
                "response.reasoning_summary_part.done",
                {**place, "part": part},
            )
        else:
            field = "refusal" if block.kind is BlockKind.REFUSAL else "text"
            out = self._write_event(
                f"{self._event_name}.done",
                {
                    **place,
                    field: block.text,
                    **self._logprobs_member,
                },
            )
            out += self._write_event(
                "response.content_part.done", {**place, "part": _write_part(block)}
            )
        data = {"output_index": len(self._output), "item": item}
        out += self._write_event("response.output_item.done", data)
        self._output.append(item)
        return out

    def end(self, end: AnswerEnd) -> bytes:
        response = self._shape.response(self._head, self._output, end)
        return self._write_event(f"response.{response['status']}", {"response": response})

    def error(self, error: object) -> bytes:
        return self._write_event("error", {"error": error})

    @property
    def _event_name(self) -> str:
        return {
            BlockKind.CALL: "response.function_call_arguments",
            BlockKind.THINKING: "response.reasoning_summary_text",
            BlockKind.REFUSAL: "response.refusal",
            BlockKind.TEXT: "response.output_text",
        }[self._block.kind]

    @property
    def _logprobs_member(self) -> dict[str, object]:
        return {"logprobs": []} if self._block.kind is BlockKind.TEXT else {}

    def _place_members(self) -> dict[str, object]:
        """Returns the members that place an event: item, output and part."""
        place: dict[str, object] = {
            "item_id": self._id,
            "output_index": len(self._output),
        }
        if self._block.kind is BlockKind.THINKING:
            place["summary_index"] = 0
        elif self._block.kind is not BlockKind.CALL:
            place["content_index"] = 0
        return place

    def _write_added(self, item: Item) -> bytes:
        data = {"output_index": len(self._output), "item": item}
        return self._write_event("response.output_item.added", data)

    def _write_event(self, kind: str, data: dict[str, object]) -> bytes:
        self._number += 1
        return write_event(kind, {"sequence_number": self._number, **data})


def response_usage(end: AnswerEnd) -> dict[str, object]:
    """Returns the usage in a response's form.

    Tokens of thinking are at most the output tokens.
    """
    input_tokens, output_tokens, cached, written, *_ = end.usage or NO_USAGE
    write_details = {"cache_write_tokens": written} if written else {}
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached, **write_details},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": min(end.reasoning_tokens, output_tokens)},
        "total_tokens": input_tokens + output_tokens,
    }


def _write_part(block: AnswerBlock) -> Item:
    if block.kind is BlockKind.REFUSAL:
        return {"type": "refusal", "refusal": block.text}
    return {
        "type": "output_text",
        "text": block.text,
        "annotations": [],
        "logprobs": [],
    }


def _joins_last_item(output: list[Item], block: AnswerBlock) -> bool:
    """Returns whether a block joins the last item.

    Consecutive texts and refusals are parts of one message.
    """
    is_text = block.kind in (BlockKind.TEXT, BlockKind.REFUSAL)
    return is_text and bool(output) and output[-1]["type"] == "message"


def _has_refusal(output: list[Item]) -> bool:
    return any(
        part.get("type") == "refusal"
        for item in output
        if isinstance(item.get("content"), list)
        for part in item["content"]  # type: ignore[attr-defined]  # it is a list
    )
