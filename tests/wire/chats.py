"""Chats of OpenAI's followers, strictly: what Mistral, DeepSeek and Groq refuse of a request
and its history, in their own words; other servers take any field.

Sources: the errors 3280, `extra_forbidden`, `reasoning_content … must be passed back` and
`property … is unsupported` that people met.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import ReceivedRequest
from tests.wire import openai
from tests.wire.openai import FIELDS
from tests.wire.server import (
    Json,
    Reading,
    Refused,
    Reply,
    Strict,
    Turn,
    Usage,
    WireRequest,
    names,
    play,
)

_ANY: Final = re.compile(r"(?s).*")
_MESSAGE: Final = names("role content name tool_calls tool_call_id refusal")
_OF_TOOLS: Final = names("tool_choice parallel_tool_calls")
_NOT_AT_GROQ: Final = names("verbosity prompt_cache_key safety_identifier store top_k")
_NOT_AT_MISTRAL: Final = _NOT_AT_GROQ | names(
    "user seed logit_bias service_tier logprobs metadata"
)


class ChatRules(NamedTuple):
    """What one kind refuses. fields: those that it knows; None for any. most_stops: None for
    any number. message: the fields of a message.
    """

    ids: re.Pattern[str] = _ANY
    fields: frozenset[str] | None = None
    wants_reasoning: bool = False
    knows_developer: bool = True
    answers_after_result: bool = False
    most_stops: int | None = None
    message: frozenset[str] = _MESSAGE


RULES: Final[Mapping[str, ChatRules]] = {
    "mistral": ChatRules(
        re.compile(r"[A-Za-z0-9]{9}"),
        (FIELDS | {"random_seed"}) - _NOT_AT_MISTRAL,
        knows_developer=False,
        answers_after_result=True,
        message=_MESSAGE | {"prefix"},
    ),
    "groq": ChatRules(fields=FIELDS - _NOT_AT_GROQ, knows_developer=False, most_stops=4),
    "deepseek": ChatRules(wants_reasoning=True, knows_developer=False, most_stops=16),
}


def bad(message: object, code: str | None = None) -> Refused:
    kind = "invalid_request_error"
    return Refused(
        400,
        {
            "error": {
                "message": message,
                "type": kind,
                "code": code,
            }
        },
    )


def need(
    holds: object,
    message: str,
    code: str | None = None,
) -> None:
    if not holds:
        raise bad(message, code)


def strict(kind: str) -> Strict:
    return Strict(
        lambda request: read(request.body, kind),
        openai.streams,
        whole,
        events,
        "/v1",
        openai.bad,
    )


def read(body: Json, kind: str) -> Reading:
    rules = RULES.get(kind, ChatRules())
    if rules.fields is not None:
        _known(body, rules.fields)
        for message in body["messages"]:
            _known(message, rules.message)
    offered = tuple(tool["function"]["name"] for tool in body.get("tools", ()))
    need(
        offered or not {"tools", *_OF_TOOLS} & set(body),
        "allowed only with 'tools'",
    )
    choice = body.get("tool_choice", "auto")
    if not isinstance(choice, str):
        choice = choice["function"]["name"]
    need(
        choice in (*offered, "auto", "none", "required"),
        f"Invalid 'tool_choice': {choice}",
    )
    need(
        body.get("stream") or "stream_options" not in body,
        "allowed only with 'stream'",
    )
    _check_stops(body.get("stop"), rules)
    waiting: list[str] = []
    turns: list[Turn] = []
    for number, message in enumerate(body["messages"]):
        _check_role(message["role"], turns, rules, number)
        if message["role"] == "tool":
            id_ = message["tool_call_id"]
            need(
                id_ in waiting,
                "'tool' must be a response to a preceding 'tool_calls'",
            )
            waiting.remove(id_)
            turns.append(Turn("tool", results=(_text(message["content"]),)))
            continue
        need(not waiting, f"no response to the tool calls {waiting}")
        waiting = _calls(message, rules, number)
        turns.append(Turn(message["role"], _text(message.get("content"))))
    need(turns, "messages must not be empty")
    need(not waiting, f"no response to the tool calls {waiting}")
    return Reading(
        "",
        tuple(turns),
        offered,
        choice,
        serial=body.get("parallel_tool_calls") is False,
        schema="response_format" in body,
        thinks=bool(body.get("reasoning_effort")),
    )


def _check_stops(stop: object, rules: ChatRules) -> None:
    most = rules.most_stops
    need(
        most is None or not isinstance(stop, list) or len(stop) <= most,
        f"'stop' : maximum number of items is {most}",
    )


def _check_role(role: str, turns: list[Turn], rules: ChatRules, number: int) -> None:
    need(
        rules.knows_developer or role != "developer",
        f"Failed to deserialize the JSON body into the target type: messages[{number}].role: "
        "unknown variant `developer`, expected one of `system`, `user`, `assistant`, `tool`",
    )
    after_result = bool(turns) and turns[-1].role == "tool"
    need(
        not (rules.answers_after_result and role == "user" and after_result),
        "Unexpected role 'user' after role 'tool'",
        "3230",
    )


def _known(given: Iterable[str], fields: frozenset[str]) -> None:
    for name in given:
        need(name in fields, f"property '{name}' is unsupported")


def _calls(
    message: Json,
    rules: ChatRules,
    number: int,
) -> list[str]:
    calls = message.get("tool_calls") or []
    ids = [call["id"] for call in calls]
    for id_ in ids:
        words = "Tool call id must be a-z, A-Z, 0-9, with a length of 9."
        need(rules.ids.fullmatch(id_), words, "3280")
    need(
        len(set(ids)) == len(ids),
        "Duplicate tool call id in assistant message",
    )
    for call in calls:
        need(
            isinstance(json.loads(call["function"]["arguments"]), dict),
            "arguments: no object",
        )
    if rules.wants_reasoning and calls:
        words = "The `reasoning_content` in the thinking mode must be passed back to the API."
        need("reasoning_content" in message, f"{words} (messages[{number}])")
    return ids


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


def whole(reply: Reply) -> Json:
    answer = openai.whole(reply)
    if reply.reasoning:
        answer["choices"][0]["message"]["reasoning_content"] = reply.reasoning
    return answer


def events(reply: Reply) -> list[bytes]:
    delta = {"index": 0, "delta": {"reasoning_content": reply.reasoning}}
    head = {
        "id": "chatcmpl-1",
        "model": openai.MODEL,
        "created": 1,
    }
    thoughts = f"data: {json.dumps({**head, 'choices': [delta]})}\n\n".encode()
    return [*([thoughts] if reply.reasoning else ()), *openai.events(reply)]


USAGE: Final = Usage(
    input=20,
    output=9,
    cached=8,
    reasoning=3,
)


def weather(read: Reading) -> Reply:
    """Calls tools for two cities where asked, then repeats their results in words."""
    results = [result for turn in read.turns for result in turn.results]
    if read.tools and not results and read.choice != "none":
        cities = ("Oslo",) if read.serial else ("Oslo", "Rome")
        calls = tuple((read.tools[0], {"city": city}) for city in cities)
        return Reply(
            "Let me look.",
            calls=calls,
            stop="tools",
            usage=USAGE,
        )
    text = '{"colour": "red"}' if read.schema else " and ".join(results) or "Hello there."
    return Reply(text, reasoning="Hm." if read.thinks else "", usage=USAGE)


def weather_turn(asked: ReceivedRequest) -> ScriptedTurn:
    return play(
        strict("groq"),
        WireRequest(asked.path, asked.headers, asked.json),
        weather,
    )
