"""What the official Python clients read of the router's answers, whole and streamed. Run by the
Python that has them, it prints as `tests/node/readers.mjs` does.

python sdk_readers.py URL KEY ROUTE...
"""

import importlib.util
import json
import sys
from typing import Any

SCHEMA = {"type": "object", "properties": {"n": {"type": "number"}}}
ASKED = [{"role": "user", "content": "hi"}]
URL, KEY, *ROUTES = sys.argv[1:]


def openai_chat(model: str, *, stream: bool) -> Any:
    client = importlib.import_module("openai").OpenAI(
        base_url=f"{URL}/v1", api_key=KEY, max_retries=0
    )
    tool = {
        "type": "function",
        "function": {"name": "find_town", "parameters": SCHEMA},
    }
    given = client.chat.completions.create(
        model=model,
        messages=ASKED,
        tools=[tool],
        stream=stream,
    )
    text = ""
    ended = False
    pieces: dict[int, list[str]] = {}
    for chunk in given if stream else [given]:
        for choice in chunk.choices:
            said = choice.delta if stream else choice.message
            text += said.content or ""
            ended = ended or bool(choice.finish_reason)
            for at, call in enumerate(said.tool_calls or ()):
                index = call.index if stream else at
                piece = pieces.setdefault(index, [call.function.name, ""])
                piece[1] += call.function.arguments or ""
    assert ended, "no finish reason"
    return (
        text,
        "",
        [[name, json.loads(arguments)] for name, arguments in pieces.values()],
    )


def openai_responses(model: str, *, stream: bool) -> Any:
    client = importlib.import_module("openai").OpenAI(
        base_url=f"{URL}/v1", api_key=KEY, max_retries=0
    )
    tool = {
        "type": "function",
        "name": "find_town",
        "parameters": SCHEMA,
        "strict": False,
    }
    reasoning = {"effort": "low", "summary": "auto"}
    given = client.responses.create(
        model=model,
        input=ASKED,
        tools=[tool],
        reasoning=reasoning,
        stream=stream,
    )
    if stream:
        *_, last = given
        assert last.type in ("response.completed", "response.incomplete"), last.type
        given = last.response
    thoughts = ""
    calls = []
    for item in given.output:
        if item.type == "reasoning":
            thoughts += "".join(part.text for part in item.summary)
        if item.type == "function_call":
            calls.append([item.name, json.loads(item.arguments)])
    return given.output_text, thoughts, calls


def anthropic_messages(model: str, *, stream: bool) -> Any:
    client = importlib.import_module("anthropic").Anthropic(
        base_url=URL, api_key=KEY, max_retries=0
    )
    tool = {"name": "find_town", "input_schema": SCHEMA}
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": 4096,
        "messages": ASKED,
        "tools": [tool],
    }
    # The oldest has no argument for it.
    body["extra_body"] = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    if stream:
        with client.messages.stream(**body) as events:
            given = events.get_final_message()
    else:
        given = client.messages.create(**body)
    by_kind: dict[str, list[Any]] = {
        "text": [],
        "thinking": [],
        "tool_use": [],
    }
    for block in given.content:
        by_kind[block.type].append(block)
    return (
        "".join(block.text for block in by_kind["text"]),
        "".join(block.thinking for block in by_kind["thinking"]),
        [[block.name, block.input] for block in by_kind["tool_use"]],
    )


def main() -> None:
    readers: dict[str, Any] = {}
    if importlib.util.find_spec("anthropic"):
        readers["anthropic-messages"] = anthropic_messages
    if importlib.util.find_spec("openai"):
        readers["openai-chat"] = openai_chat
        if hasattr(importlib.import_module("openai").OpenAI, "responses"):
            readers["openai-responses"] = openai_responses
    told = {}
    for name, read in readers.items():
        for route in ROUTES:
            for stream in (False, True):
                place = f"{name} {route} {'streamed' if stream else 'whole'}"
                try:
                    text, thoughts, calls = read(route, stream=stream)
                    told[place] = {
                        "text": text,
                        "thoughts": thoughts,
                        "calls": calls,
                    }
                except Exception as error:  # noqa: BLE001 - each kind is how a reader says it
                    told[place] = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
