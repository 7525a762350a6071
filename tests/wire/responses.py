"""OpenAI's Responses, strictly: items that this provider never stored, reasoning that another
one encrypted, and unknown fields are refused in its own words.

Sources: its API reference (responses), and the errors that people met:
`invalid_encrypted_content`, `Item with id … not found`, `… without its required 'reasoning'
item`.
"""

import json
from typing import Any, Final

from tests.wire.openai import check_strict, error, known, need
from tests.wire.server import NUMBERS, Json, Reading, Reply, Turn, Usage, names

FIELDS: Final = names(
    "model input instructions max_output_tokens stream store include reasoning text tools "
    "tool_choice parallel_tool_calls temperature top_p metadata user truncation "
    "previous_response_id prompt_cache_key safety_identifier client_metadata service_tier "
    "prompt_cache_retention stream_options top_logprobs"
)
# The members of a function tool, of a message, and of a content's part.
FUNCTION: Final = names("type name description parameters strict")
MESSAGE: Final = names("type role content id status phase")
PARTS: Final = {
    "input_text": names("type text"),
    "input_image": names("type image_url file_id detail"),
    "input_file": names("type file_id file_url filename file_data detail"),
    "output_text": names("type text annotations logprobs"),
    "refusal": names("type refusal"),
}
SAID: Final = names("output_text refusal")
INCLUDES: Final = names("reasoning.encrypted_content message.output_text.logprobs")
LEAST_OUTPUT: Final = 16
TOOLS: Final = names("function custom namespace web_search")
CALLS: Final = names("function_call custom_tool_call")
RESULTS: Final = names("function_call_output custom_tool_call_output")
# By a reply's stop, the members of an incomplete response.
UNFINISHED: Final[dict[str, Json]] = {
    "length": {
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
    },
    "refusal": {
        "status": "incomplete",
        "incomplete_details": {"reason": "content_filter"},
    },
}
# By id: an item, and a response's whole conversation.
STORED: Final[dict[str, list[Json]]] = {}
# The end of an id of an item that goes with the reasoning before it.
REASONED: Final = "_reasoned"
HOSTED: Final = names("web_search_call code_interpreter_call mcp_call")


def read(body: Json, provider: str) -> Reading:
    """Reads a request as this provider does. Raises Refused."""
    for name in body:
        if name not in FIELDS:
            raise error(400, f"Unknown parameter: '{name}'.", "unknown_parameter")
    _check_tools(body.get("tools", ()))
    _check_settings(body)
    items = _conversation(body)
    waiting: list[str] = []
    turns: list[Turn] = []
    reasons = False
    for number, item in enumerate(items):
        kind = item.get("type") or "message"
        if kind == "reasoning":
            _check_reasoning(item, provider, stored=body.get("store") is not False)
        elif kind in CALLS:
            need(
                len(item["call_id"]) <= 64,
                f"Invalid 'input[{number}].call_id': string too long.",
            )
            _check_id(item, provider, reasons=reasons)
            waiting.append(item["call_id"])
        elif kind in RESULTS:
            need(
                item["call_id"] in waiting,
                "No tool call found for function call output",
            )
            waiting.remove(item["call_id"])
            turns.append(Turn("tool", results=(_text(item["output"]),)))
        elif kind == "message":
            _check_message(item, number)
            if item["role"] == "assistant":  # a client may name its own messages
                _check_id(item, provider, reasons=reasons)
            images = sum(part["type"] == "input_image" for part in _parts(item["content"]))
            turns.append(Turn(item["role"], _text(item["content"]), images))
        else:
            need(kind in HOSTED, f"Invalid value: '{kind}'.")
        begins = kind == "message" and item["role"] != "assistant"
        reasons = kind == "reasoning" or (reasons and not begins)
    need(not waiting, f"No tool output found for function call {waiting}.")
    offered = tuple(str(tool.get("name")) for tool in body.get("tools", ()))
    form = (body.get("text") or {}).get("format") or {}
    return Reading(
        "",
        tuple(turns),
        offered,
        _choice(body.get("tool_choice", "auto"), offered),
        schema=form.get("type") == "json_schema",
        thinks=bool(body.get("reasoning")),
        limit=body.get("max_output_tokens"),
        temperature=body.get("temperature"),
    )


def _choice(choice: Any, offered: tuple[str, ...]) -> str:
    if isinstance(choice, str):
        return {"required": "any"}.get(choice, choice)
    if choice["type"] != "function":
        return "auto"
    need(choice["name"] in offered, f"Tool choice '{choice['name']}' not found in 'tools'.")
    return str(choice["name"])


def _check_tools(tools: Any) -> None:
    for at, tool in enumerate(tools):
        need(tool["type"] in TOOLS, f"Invalid value: '{tool['type']}'.")
        if tool["type"] == "function":
            known(tool, FUNCTION, f"tools[{at}].")
            need("name" in tool, f"Missing required parameter: 'tools[{at}].name'.")
            if tool.get("strict"):
                check_strict(tool["parameters"], f"function '{tool['name']}'")


def _check_settings(body: Json) -> None:
    limit = body.get("max_output_tokens")
    need(
        limit is None or limit >= LEAST_OUTPUT,
        "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= "
        f"{LEAST_OUTPUT}, but got {limit} instead.",
    )
    for name in body.get("include") or ():
        need(name in INCLUDES, f"Invalid value: '{name}'.")
    known(body.get("reasoning") or {}, names("effort summary generate_summary"), "reasoning.")
    text = body.get("text") or {}
    known(text, names("format verbosity"), "text.")
    form = text.get("format") or {}
    known(form, names("type name description schema strict"), "text.format.")
    if form.get("strict"):
        check_strict(form["schema"], f"response_format '{form['name']}'")
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        known(choice, names("type name mode tools"), "tool_choice.")


def _check_message(item: Json, number: int) -> None:
    place = f"input[{number}]"
    known(item, MESSAGE, f"{place}.")
    content = item["content"]
    for at, part in enumerate(content if isinstance(content, list) else ()):
        kind = part["type"]
        fits = kind in PARTS and (kind in SAID) == (item["role"] == "assistant")
        if not fits:
            words = f"Invalid value: '{kind}'. Supported values are: {', '.join(PARTS)}."
            raise error(400, words, "invalid_value")
        known(part, PARTS[kind], f"{place}.content[{at}].")


def _conversation(body: Json) -> list[Json]:
    """The items of a request, with those that this provider stored."""
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    earlier = body.get("previous_response_id")
    if earlier is not None:
        if earlier not in STORED:
            words = f"Previous response with id '{earlier}' not found."
            raise error(400, words, "previous_response_not_found")
        items = [*STORED[earlier], *items]
    found: list[Json] = []
    for item in items:
        if item.get("type") == "item_reference":
            if item["id"] not in STORED:
                raise error(404, f"Item with id '{item['id']}' not found.")
            found += STORED[item["id"]]
        else:
            found.append(item)
    return found


def _check_reasoning(
    item: Json,
    provider: str,
    *,
    stored: bool,
) -> None:
    encrypted = item.get("encrypted_content")
    if encrypted is None:
        known = stored and str(item["id"]).startswith(f"rs_{provider}_")
        words = "Items are not persisted when `store` is set to false."
        if not known:
            raise error(404, f"Item with id '{item['id']}' not found. {words}")
    elif encrypted != sealed(provider):
        words = f"The encrypted content for item {item['id']} could not be verified."
        raise error(400, words, "invalid_encrypted_content")


def _check_id(
    item: Json,
    provider: str,
    *,
    reasons: bool,
) -> None:
    """An id of an item that this provider made after it reasoned wants that reasoning."""
    id_ = str(item.get("id") or "")
    if id_:
        own = id_.partition("_")[2].startswith(f"{provider}_")
        need(own, f"Item with id '{id_}' not found.")
        missing = f"Item '{id_}' was provided without its required 'reasoning' item."
        need(reasons or not id_.endswith(REASONED), missing)


def _parts(content: Any) -> list[Json]:
    return content if isinstance(content, list) else []


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def sealed(provider: str) -> str:
    return f"gAAAAAB{provider}"


def whole(
    reply: Reply,
    body: Json,
    provider: str,
) -> Json:
    output: list[Json] = []
    end = REASONED if reply.reasoning else ""
    done = {"status": "completed"}

    def id_of(kind: str) -> Json:
        return {"id": f"{kind}_{provider}_{next(NUMBERS)}{end}"}

    if reply.reasoning:
        summary = {"type": "summary_text", "text": reply.reasoning}
        item: Json = {
            **id_of("rs"),
            "type": "reasoning",
            "summary": [summary],
        }
        if "reasoning.encrypted_content" in body.get("include", ()):
            item["encrypted_content"] = sealed(provider)
        output.append(item)
    if reply.text:
        part = {
            "type": "output_text",
            "text": reply.text,
            "annotations": [],
        }
        said = {
            **id_of("msg"),
            "type": "message",
            "role": "assistant",
            **done,
        }
        output.append({**said, "content": [part]})
    for name, arguments in reply.calls:
        call = {
            **id_of("fc"),
            "type": "function_call",
            "call_id": f"call_{next(NUMBERS)}",
        }
        output.append(
            {
                **call,
                "name": name,
                "arguments": json.dumps(arguments),
                **done,
            }
        )
    counts = reply.usage if reply.usage != Usage() else Usage(5, 5)
    usage = {
        "input_tokens": counts.input,
        "input_tokens_details": {"cached_tokens": counts.cached},
        "output_tokens": counts.output,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.input + counts.output,
    }
    id_ = f"resp_{next(NUMBERS)}"
    if body.get("store") is not False:
        STORED.update({item["id"]: [item] for item in output})
        STORED[id_] = [*_conversation(body), *output]
    head = {
        "id": id_,
        "object": "response",
        "created_at": 1,
        **done,
    }
    return {
        **head,
        **UNFINISHED.get(reply.stop, {}),
        "model": body["model"],
        "output": output,
        "tools": [],
        "usage": usage,
    }


def events(answer: Json) -> list[bytes]:
    began = {
        **answer,
        "status": "in_progress",
        "output": [],
    }
    told: list[Json] = [{"type": "response.created", "response": began}]
    for index, item in enumerate(answer["output"]):
        place = {"output_index": index, "item": item}
        empty = {
            "content": [],
            "summary": [],
            "arguments": "",
        }
        bare = {name: empty.get(name, value) for name, value in item.items()}
        told.append(
            {
                "type": "response.output_item.added",
                **place,
                "item": bare,
            }
        )
        pieces = _pieces(item)
        told += [
            {
                "item_id": item["id"],
                "output_index": index,
                **piece,
            }
            for piece in pieces
        ]
        told.append({"type": "response.output_item.done", **place})
    told.append({"type": f"response.{answer['status']}", "response": answer})
    numbered = [{**event, "sequence_number": at} for at, event in enumerate(told)]
    return [
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in numbered
    ]


def _pieces(item: Json) -> list[Json]:
    """The events between an item's begin and end, without their place."""
    if item["type"] == "function_call":
        given = item["arguments"]
        kind = "response.function_call_arguments"
        deltas = [given[at : at + 5] for at in range(0, len(given), 5)]
        return [
            *({"type": f"{kind}.delta", "delta": delta} for delta in deltas),
            {
                "type": f"{kind}.done",
                "arguments": given,
                "name": item["name"],
            },
        ]
    if item["type"] == "reasoning":
        (part,) = item["summary"]
        kind = "response.reasoning_summary"
        at = "summary_index"
    else:
        (part,) = item["content"]
        kind = "response.content"
        at = "content_index"
    text = "response.output_text" if at == "content_index" else f"{kind}_text"
    place = {at: 0}
    said = part["text"]
    return [
        {
            "type": f"{kind}_part.added",
            **place,
            "part": {**part, "text": ""},
        },
        {
            "type": f"{text}.delta",
            **place,
            "delta": said,
            "logprobs": [],
        },
        {
            "type": f"{text}.done",
            **place,
            "text": said,
            "logprobs": [],
        },
        {
            "type": f"{kind}_part.done",
            **place,
            "part": part,
        },
    ]
