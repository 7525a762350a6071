"""The chat dialect patches `/v1/chat/completions` requests and reads their answers.

`ChatDialect` is also the interface of all dialects. A body is edited in its text, so that
unknown fields reach the provider unchanged. Streams are in `stream`; a request to a
provider with another protocol is translated in `router.upstream.translate`.
"""

from collections.abc import Iterator, Mapping
from typing import Final, cast

from harness.frame.failures import FailureClass
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import RequestTarget
from router.frame.body import (
    CHAT_PATH,
    ClientRequest,
    append_members,
    empty_answer_error,
    field_edits,
    first_object,
    iter_objects,
    model_alone,
    model_edit,
    setting_edits,
    to_json,
)
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import (
    JsonSpan,
    ParsedObject,
    TextEdit,
    apply_edits,
    element_spans,
    member_spans,
)
from router.frame.replies import Reply
from router.protocols.answer_signals import (
    ANY,
    AnswerSignals,
    read_schema,
    read_signals,
)
from router.protocols.answers import (
    AnswerEnding,
    TokenUsage,
    read_ending,
    read_usage,
)
from router.protocols.caller_names import conversation_opening
from router.protocols.chat.stream import ChatStream, has_answer
from router.protocols.event_stream import (
    Irregularity,
    StreamFilter,
    end_irregularity,
)
from router.protocols.provider_failures import (
    check_arguments,
    check_ending,
    error_in_answer,
)

CHAT_RESERVED: Final = frozenset({"model", "messages", "stream"})
SYSTEM_ROLES: Final = ("system", "developer")
OPTIONS: Final = "stream_options"
USAGE: Final = {"include_usage": True}
WITH_USAGE: Final[Mapping[str, object]] = {OPTIONS: USAGE}
_USAGE_MEMBER: Final = f",{to_json(WITH_USAGE)[1:-1]}".encode()
_GOOD_REASONS: Final = ("stop", "tool_calls")  # the most frequent good reasons; `ENDS` has all
_CUT: Final = AnswerEnding.CUT


class ChatDialect:
    """One endpoint's protocol; the other dialects inherit from it.

    path: below a provider's `api_base`, and below `/v1` of the router.
    passed_up: the client's headers that the router forwards to the provider, with defaults.
    call_mark: text that every answer with tool calls contains.
    """

    def __init__(self) -> None:
        self.endpoint = Endpoint.CHAT
        self.path = CHAT_PATH
        self.passed_up: Mapping[bytes, bytes] = {}
        self.call_mark = '"tool_calls"'

    def opening(self, request: ClientRequest, skipped: int = 0) -> list[object]:
        """Returns the beginning that all turns of a conversation share.

        Args:
            skipped: see `conversation_opening`.
        """
        return conversation_opening(request.value("messages"), skipped=skipped)

    def patched(
        self,
        request: ClientRequest,
        target: RequestTarget,
        *,
        serialize_tools: bool = False,
    ) -> bytes:
        """Patches the request for a target: model, parameters, patch and prompt addendum.

        Args:
            serialize_tools: forbids parallel tool calls.

        A stream always requests usage; `ChatStream` may hide it.
        """
        new_fields = _build_fields(request, target)
        if serialize_tools and not request.serial_tools:
            new_fields["parallel_tool_calls"] = False
        addendum = target.request_patch.prompt_addendum
        adds_only_usage = (
            request.stream and new_fields == WITH_USAGE and OPTIONS not in request.members
        )
        if not addendum and (adds_only_usage or not (new_fields or request.stream)):
            body = model_alone(request, target)
            if body is not None:
                return _add_usage(body) if adds_only_usage else body
        edits = [model_edit(request, target), *field_edits(request, new_fields)]
        if request.stream and "stream_options" not in new_fields:
            edits += _usage_edits(request)
        messages = request.members.values.get("messages") if addendum else None
        if messages is not None:
            edits += _addendum_edits(request.text, messages, addendum)
        return apply_edits(request.text, edits)

    def plain_stream(self, members: ParsedObject, model: str) -> bytes | None:
        """Replaces only the model, quickly. Returns None if that is not possible."""
        body = members.with_text("model", model) if OPTIONS not in members.found else None
        return None if body is None else _add_usage(body)

    def checked(self, members: ParsedObject, *, silence: bool = False) -> TokenUsage | None:
        """Returns the usage. Raises UpstreamFailed for a missing answer or a failed end.

        Args:
            silence: the route accepts an answer without content.
        """
        if members.get("error") and not members.get("choices"):
            raise error_in_answer(members.get("error"))
        choice = first_object(members, "choices")
        message = choice.get("message")
        if not isinstance(message, dict):
            raise UpstreamFailed(FailureClass.MALFORMED, "status 200 without a message")
        reason = choice.get("finish_reason")
        # Most answers have text and end well.
        content = message.get("content")
        is_text = content.__class__ is str and content and not content.isspace()
        if not (is_text and reason in _GOOD_REASONS):
            choices = iter_objects(members.get("choices"))
            messages = [
                message,
                *(choice.get("message") for choice in choices),
            ]
            has_output = any(isinstance(m, dict) and has_answer(m) for m in messages)
            if not reason and not has_output:
                raise empty_answer_error("finish_reason")
            if reason:
                check_ending(reason, has_output=has_output, silence=silence)
        if reason and "tool_calls" in message and read_ending(reason) is not _CUT:
            check_arguments(_iter_arguments(message["tool_calls"]))
        return read_usage(members.get("usage"), members.get("service_tier"))

    def irregularity(self, members: ParsedObject) -> Irregularity | None:
        """Returns the harmless deviation of a whole answer from its protocol, or None."""
        choices = members.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if (
                    isinstance(choice, dict)
                    and choice.get("finish_reason") not in _GOOD_REASONS
                ):
                    return end_irregularity(choice.get("finish_reason"))
        return None

    def schema(self, request: ClientRequest) -> Mapping[str, object] | None:
        """Returns the schema that the request demands of its answer. See `read_schema`."""
        return read_schema(request.members.get("response_format"))

    def tools(self, request: ClientRequest) -> Mapping[str, object]:
        """Returns the schemas of the offered tools by name; None for a tool that takes any
        text.
        """
        schemas: dict[str, object] = {}
        for tool in iter_objects(request.value("tools")):
            function = tool.get("function")
            custom = tool.get("custom")
            if isinstance(function, Mapping):
                schemas[str(function.get("name"))] = function.get("parameters") or ANY
            elif isinstance(custom, Mapping):
                schemas[str(custom.get("name"))] = None
        return schemas

    def note_signals(self, signals: AnswerSignals, members: ParsedObject) -> None:
        """Reads the signals of a whole answer.

        Args:
            members: the provider's unchanged answer.
        """
        choices = members.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict):
                    read_signals(signals, choice, "message")

    def stream(self, request: ClientRequest, json_name: str | None) -> StreamFilter:
        """Returns the filter for a stream.

        Args:
            json_name: the client's name of the model, as JSON; None to keep the provider's.
        """
        n = request.members.get("n")
        choice_count = n if type(n) is int and n > 1 else 1
        return ChatStream(
            json_name,
            show_usage=request.wants_usage,
            choice_count=choice_count,
        )

    def error(self, reply: Reply, request_id: str) -> Reply:  # noqa: ARG002 - the header has it
        """Puts an error of OpenAI's shape into the shape of this protocol."""
        return reply


def _iter_arguments(calls: object) -> Iterator[object]:
    for call in iter_objects(calls):
        function = call.get("function")
        if isinstance(function, dict):
            yield function.get("arguments")


def _build_fields(request: ClientRequest, target: RequestTarget) -> dict[str, object]:
    """Returns the top-level fields to set: the target's settings, and usage for a stream."""
    new_fields = setting_edits(request, target, CHAT_RESERVED)
    response_format = target.request_patch.response_format
    if response_format:
        new_fields["response_format"] = response_format
    if request.stream:
        stream_options = new_fields.get("stream_options")
        if isinstance(stream_options, Mapping):
            new_fields["stream_options"] = {**stream_options, "include_usage": True}
        elif "stream_options" in new_fields or not isinstance(
            request.value("stream_options"), dict
        ):
            new_fields["stream_options"] = dict(USAGE)
    return new_fields


def _add_usage(body: bytes) -> bytes:
    close = body.rindex(b"}")  # the last brace: only white space may follow
    return b"%b%b%b" % (body[:close], _USAGE_MEMBER, body[close:])


def _usage_edits(request: ClientRequest) -> list[TextEdit]:
    if request.wants_usage:
        return []
    start = request.members.values["stream_options"].start
    stream_options = cast("Mapping[str, object]", request.value("stream_options"))
    options, close = member_spans(request.text, start, stream_options)
    option = options.get("include_usage")
    if option is not None:
        return [TextEdit(option.start, option.end, "true")]
    return [TextEdit(close, close, f'{"," if options else ""}"include_usage":true')]


def _addendum_edits(
    text: str,
    messages: JsonSpan,
    addendum: str,
) -> list[TextEdit]:
    """Returns the edits that append the addendum to the first system prompt, or add one."""
    if not isinstance(messages.value, list):
        return []
    for message in element_spans(text, messages.start, messages.value):
        if isinstance(message.value, dict) and message.value.get("role") in SYSTEM_ROLES:
            content = member_spans(text, message.start, message.value).values.get("content")
            return append_members(content, addendum) if content else []
    new_message = to_json({"role": "system", "content": addendum}) + (
        "," if messages.value else ""
    )
    return [TextEdit(messages.start + 1, messages.start + 1, new_message)]


CHAT: Final = ChatDialect()
