"""The responses dialect patches `/v1/responses` requests and filters their answers.

It serves targets that speak the same protocol, so it translates nothing. `response_request`
translates requests for other targets. The interface is `chat.dialect.ChatDialect`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from harness.frame.failures import FailureClass
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import JsonObject, RequestTarget
from router.conversation.hosted_tools import flat_name
from router.frame.body import (
    RESPONSES_PATH,
    ClientRequest,
    empty_answer_error,
    iter_objects,
    patched_body,
    setting_edits,
    to_json,
)
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import (
    ParsedObject,
    TextEdit,
    member_edit,
    member_spans,
)
from router.protocols.answer_signals import ANY, AnswerSignals, read_schema
from router.protocols.answers import (
    AnswerEnding,
    TokenUsage,
    read_ending,
    read_usage_with_cache,
)
from router.protocols.caller_names import conversation_opening
from router.protocols.chat.dialect import CHAT_RESERVED, ChatDialect
from router.protocols.event_stream import (
    Irregularity,
    StreamFilter,
    end_irregularity,
)
from router.protocols.provider_failures import (
    check_arguments,
    check_ending,
    classify_error,
    error_in_answer,
)


def read_signals(
    signals: AnswerSignals,
    output: object,
    incomplete: object,
) -> None:
    """Reads the signals of an output.

    Args:
        incomplete: the response's `incomplete_details`.
    """
    for item_index, item in enumerate(iter_objects(output)):
        match item.get("type"):
            case "message":
                for number, part in enumerate(iter_objects(item.get("content"))):
                    _read_part(signals, (item_index, number), part)
            case "function_call":
                signals.call(item_index, flat_name(item), item.get("arguments"))
            case "custom_tool_call":
                signals.call(item_index, flat_name(item), item.get("input"))
            case _:
                pass
    if isinstance(incomplete, Mapping):
        signals.note_end(incomplete.get("reason"))


def _read_part(
    signals: AnswerSignals,
    place: object,
    part: Mapping[str, object],
) -> None:
    match part.get("type"):
        case "output_text":
            signals.text(place, part.get("text"))
        case "refusal":
            signals.refused = True
        case _:
            pass


# Metadata events. Every other event of a response is output, or follows output.
METADATA_EVENTS: Final = frozenset(
    {
        "keepalive",
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_summary_part.added",
    }
)
# Metadata events that are not progress.
NO_PROGRESS: Final = frozenset(
    {
        "keepalive",
        "response.created",
        "response.queued",
        "response.in_progress",
    }
)
# Statuses of a background response, which is not an answer yet. The router never asks for one.
BACKGROUND_STATUSES: Final = frozenset({"queued", "in_progress"})
_ITEM_DONE: Final = "response.output_item.done"
# Final events of a part or item, which may be empty.
_FINAL_PART_EVENTS: Final = frozenset(
    {
        "response.output_text.done",
        "response.content_part.done",
        _ITEM_DONE,
    }
)
ENDS: Final = frozenset({"response.completed", "response.incomplete"})


def read_response_usage(value: object, tier: object = None) -> TokenUsage | None:
    """Reads a response's usage; None without one.

    Args:
        tier: the response's.
    """
    if not isinstance(value, dict):
        return None
    return read_usage_with_cache(
        value.get("input_tokens"),
        value.get("output_tokens"),
        value.get("input_tokens_details"),
        tier,
    )


class ResponsesStream(StreamFilter):
    """The stream ends only with `response.completed`, `.incomplete` or `.failed`."""

    def __init__(self, json_name: str | None) -> None:
        super().__init__(json_name)
        self._number = -1
        # The complete items, because some servers send an empty output at the end.
        self._items: list[object] = []

    def broken(self, message: str, failure: FailureClass) -> bytes:
        details = {
            "code": failure.value,
            "message": message,
            "param": None,
        }
        # The official client reads `error`; the specification has the fields at the top level.
        error = {
            "type": "error",
            "sequence_number": self._number + 1,
            **details,
            "error": {"type": "upstream_error", **details},
        }
        return b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"

    def _handle_done(self, event: bytes) -> bytes:
        return event  # this protocol has no `[DONE]`

    def _handle_early_close(self) -> bytes:
        self._fail("the stream ended without a response.completed")
        return b""

    def _read(self, text: str, members: ParsedObject) -> Sequence[TextEdit] | None:
        kind = members.get("type")
        number = members.get("sequence_number")
        if isinstance(number, int):
            self._number = number
        if kind == "error" or (kind is None and "error" in members):
            nested_error = members.get("error")
            self._fail_with_error(nested_error or dict(members.found))
            return None
        if not isinstance(kind, str) and not self.committed:
            self._fail("an event without a type")
            return None
        if str(kind) in ENDS and not self._is_good_end(str(kind), members):
            return None
        self._note_output(str(kind), members)
        response = members.values.get("response") if "response" in members else None
        if response is None or not isinstance(response.value, dict):
            return self._mend_item(members)
        # The first event has the requested tier, the last one the tier that served.
        self.tier = response.value.get("service_tier") or self.tier
        usage_object = response.value.get("usage")
        usage = read_response_usage(usage_object, self.tier)
        if usage is not None:
            self.usage = usage
            self.counted = True
            self.given_usage = usage_object
        if str(kind) in ENDS:
            self.finished = True
            self.finish_reasons.append(str(kind).removeprefix("response."))
            if self.signals is not None:
                response_object = response.value
                self._note(
                    read_signals,
                    response_object.get("output") or self._items,
                    response_object.get("incomplete_details"),
                )
        elif kind == "response.failed" and not self._handle_failed(response.value):
            return None
        return (
            self._rewrite_response(members, response.value)
            if self.ids.mend(response.value, is_repeated=self.finished)
            else self._model_edit(
                member_spans(text, response.start, response.value).values.get("model")
            )
        )

    def _mend_item(self, members: ParsedObject) -> Sequence[TextEdit]:
        item = members.get("item")
        place = members.get("output_index")
        if self.signals is not None and members.get("type") == _ITEM_DONE:
            self._items.append(item)
        if not isinstance(item, dict) or not self.ids.mend_call(item, place):
            return ()
        return (member_edit(members, "item", to_json(item)),)

    def _rewrite_response(
        self, members: ParsedObject, response: dict[str, object]
    ) -> Sequence[TextEdit]:
        self.model = self.model or str(response.get("model") or "")
        if self._json_name is not None and "model" in response:
            response["model"] = json.loads(self._json_name)
        return (member_edit(members, "response", to_json(response)),)

    def _note_output(self, kind: str, members: ParsedObject) -> None:
        """Notes an event with output, which commits the stream unless it is blank."""
        delta = members.get("delta")
        self.progress_events += kind not in NO_PROGRESS and delta != ""
        if kind.startswith("response.") and kind not in METADATA_EVENTS and delta != "":
            self.output_events += bool(delta)
            if not (
                self.committed or kind == "response.failed" or _is_blank(kind, delta, members)
            ):
                self.committed = True

    def _is_good_end(self, kind: str, members: ParsedObject) -> bool:
        """Checks the response of the last event. Fails the stream if it is not an answer.

        Returns whether it is an answer.
        """
        response = members.get("response")
        if not isinstance(response, dict):
            return True
        output = response.get("output")
        # Some servers send an empty output list at the end, although they sent output before.
        has_output = any(map(item_answers, iter_objects(output))) if output else self.committed
        reason = end_reason(response.get) or kind.removeprefix("response.")
        if not self._ends_well(reason, has_output=has_output):
            return False
        try:
            check_calls(output, reason)
        except UpstreamFailed as error:
            self._fail(error.detail)
        return not self.failure

    def _handle_failed(self, response: Mapping[str, object]) -> bool:
        """Handles a failed response. Returns whether the client must get the failure.

        That is so if the client already has output.
        """
        if not self.committed:
            self._fail_with_error(response.get("error"))
            return False
        self.finished = True
        self.failure_class = classify_error(response.get("error"))
        return True


def _is_blank(
    kind: str,
    delta: object,
    members: ParsedObject,
) -> bool:
    if kind not in _FINAL_PART_EVENTS:
        return isinstance(delta, str) and delta.isspace()
    item = members.get("item")
    return item is None or not item_speaks(item)


def end_reason(get: Callable[[str], object]) -> object:
    """Returns why a response ended: the reason of an incomplete one, else its status.

    Args:
        get: returns a member of the response.
    """
    details = get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return reason if get("status") == "incomplete" and reason else get("status")


def check_calls(output: object, reason: object) -> None:
    """Checks calls unless the length limit cut the answer. Raises UpstreamFailed."""
    if read_ending(reason) is not AnswerEnding.CUT:
        check_arguments(
            item.get("arguments")
            for item in iter_objects(output)
            if item.get("type") == "function_call"
        )


def item_answers(item: object) -> bool:
    """Returns whether an output item is an answer: not reasoning, and not an empty message."""
    return item_speaks(item) and isinstance(item, dict) and item.get("type") != "reasoning"


def item_speaks(item: object) -> bool:
    """Returns whether an output item has content. Only an empty message has none."""
    if not isinstance(item, dict):
        return False
    if item.get("type") != "message":
        return True
    content = item.get("content")
    return isinstance(content, list) and any(
        isinstance(part, dict) and (str(part.get("text") or "").strip() or part.get("refusal"))
        for part in content
    )


RESERVED: Final = CHAT_RESERVED | {"input"}
FIELD_NAMES: Final = dict.fromkeys(("max_tokens", "max_completion_tokens"), "max_output_tokens")


class ResponsesDialect(ChatDialect):
    """OpenAI's protocol of responses. A background response is no answer."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoint = Endpoint.RESPONSES
        self.path = RESPONSES_PATH
        self.call_mark = '_call"'

    def opening(self, request: ClientRequest, skipped: int = 0) -> list[object]:
        if request.value("previous_response_id") or request.value("conversation"):
            return []
        messages = request.value("input")
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}] if messages else []
        return conversation_opening(messages, request.value("instructions"), skipped)

    def patched(
        self,
        request: ClientRequest,
        target: RequestTarget,
        *,
        serialize_tools: bool = False,
    ) -> bytes:
        new_fields = setting_edits(request, target, RESERVED, FIELD_NAMES)
        if serialize_tools and not request.serial_tools:
            new_fields["parallel_tool_calls"] = False
        if response_format := target.request_patch.response_format:
            text = new_fields.get("text", request.value("text"))
            text_members = dict(text) if isinstance(text, Mapping) else {}
            new_fields["text"] = {
                **text_members,
                "format": _text_format(response_format),
            }
        return patched_body(request, target, new_fields, "instructions")

    def checked(self, members: ParsedObject, *, silence: bool = False) -> TokenUsage | None:
        if members.get("error"):
            raise error_in_answer(members.get("error"))
        output = members.get("output")
        if not isinstance(output, list):
            raise UpstreamFailed(FailureClass.MALFORMED, "status 200 without an output")
        status = members.get("status")
        if not status and not output:
            raise empty_answer_error("status")
        if str(status) in BACKGROUND_STATUSES:
            raise UpstreamFailed(FailureClass.MALFORMED, f"a background response: {status}")
        if status:
            has_output = any(map(item_answers, output))
            reason = end_reason(members.get)
            check_ending(reason, has_output=has_output, silence=silence)
            check_calls(output, reason)
        return read_response_usage(members.get("usage"), members.get("service_tier"))

    def irregularity(self, members: ParsedObject) -> Irregularity | None:
        return end_irregularity(end_reason(members.get))

    def schema(self, request: ClientRequest) -> Mapping[str, object] | None:
        text = request.value("text")
        return read_schema(text.get("format") if isinstance(text, Mapping) else None)

    def tools(self, request: ClientRequest) -> Mapping[str, object]:
        # The names of a namespace's functions begin with the namespace.
        schemas: dict[str, object] = {}
        for tool in iter_objects(request.value("tools")):
            namespace = tool.get("name") if tool.get("type") == "namespace" else None
            for offered in iter_objects(tool.get("tools")) if namespace else (tool,):
                schema = offered.get("parameters") or ANY
                name = flat_name({**offered, "namespace": namespace})
                schemas[name] = schema if offered.get("type") == "function" else None
        return schemas

    def note_signals(self, signals: AnswerSignals, members: ParsedObject) -> None:
        read_signals(signals, members.get("output"), members.get("incomplete_details"))

    def stream(self, request: ClientRequest, json_name: str | None) -> StreamFilter:  # noqa: ARG002 - a Dialect
        return ResponsesStream(json_name)


def _text_format(response_format: JsonObject) -> dict[str, object]:
    schema = response_format.get("json_schema")
    flat = {name: v for name, v in response_format.items() if name != "json_schema"}
    return {**flat, **schema} if isinstance(schema, Mapping) else flat


RESPONSES: Final = ResponsesDialect()
