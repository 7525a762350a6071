"""Runs the functions that the model calls, and sends it their results, until it calls no
function.

The loop is a convenience for one process: agents with sessions and tool servers are in
`harness.agents`. Each turn is an ordinary request, so the router chooses its model.
"""

import asyncio
import inspect
import json
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from harness.client.types import (
    CompletionRequest,
    CompletionResponse,
    Message,
    ToolRequest,
    ToolResponse,
    ToolRun,
    Usage,
)
from harness.frame.errors import InputError, ToolLoopUnfinished

# A function, or a coroutine function, that gets the model's arguments by name. If its only
# parameter is annotated as ToolRequest, it gets the request itself.
ToolFunction = Callable[..., object]
Complete = Callable[[CompletionRequest], Awaitable[CompletionResponse]]
MAX_TURNS: Final = 8


async def run_tool_loop(
    complete: Complete,
    request: CompletionRequest,
    tools: Mapping[str, ToolFunction],
    max_turns: int,
) -> ToolRun:
    """Runs the tools of each turn in parallel; plain functions run in threads. If a tool fails,
    the model gets its error.

    Args:
        complete: sends one request.
        tools: a function for each of the request's tools, by name.
        max_turns: the largest number of answers, at least 1.

    Raises InputError for missing tools, and ToolLoopUnfinished, whose `conversation` has the
    messages so far.
    """
    _check_tools(request, tools, max_turns)
    messages: list[Message] = list(request.messages)
    usage = Usage()
    for turn in range(1, max_turns + 1):
        response = await complete(replace(request, messages=tuple(messages)))
        usage += response.usage or Usage()
        messages.append(response.message)
        if not response.tool_requests:
            return ToolRun(response, tuple(messages), turn, usage)
        responses = await asyncio.gather(
            *(_run_tool(tool_request, tools) for tool_request in response.tool_requests)
        )
        messages += [Message.tool(tool_response) for tool_response in responses]
        # Forces a tool only once: otherwise the model would have to call it in every turn.
        if request.tool_choice not in ("", "auto"):
            request = replace(request, tool_choice="auto")
    unfinished = ToolLoopUnfinished(
        f"route {request.asked_route!r}: after {max_turns} turns the model still calls tools; "
        "raise max_turns, or continue from `conversation`",
        details={"turns": max_turns},
    )
    unfinished.conversation = tuple(messages)
    raise unfinished


def _check_tools(
    request: CompletionRequest,
    tools: Mapping[str, ToolFunction],
    max_turns: int,
) -> None:
    """Requires a function for each tool, and a tool for each function. Raises InputError."""
    if max_turns < 1:
        raise InputError(f"max_turns: {max_turns} allows no turn; give 1 or more")
    defined = {tool.name for tool in request.tools}
    for missing, fault, remedy in (
        (defined - tools.keys(), "no function for", "pass one in `tools`"),
        (
            tools.keys() - defined,
            "no definition of",
            "add one to the request's tools",
        ),
    ):
        if missing:
            raise InputError(f"tools: {fault} {', '.join(sorted(missing))}; {remedy}")


async def _run_tool(request: ToolRequest, tools: Mapping[str, ToolFunction]) -> ToolResponse:
    """Runs one tool. An unknown tool or an exception becomes an error that the model
    can read.
    """
    function = tools.get(request.name)
    if function is None:
        names = ", ".join(sorted(tools))
        return ToolResponse(
            request.id,
            f"there is no tool {request.name!r}; there are: {names}",
            is_error=True,
        )
    try:
        return _build_response(request, await _call_function(function, request))
    except Exception as error:  # noqa: BLE001 - the model gets the error, and may continue
        return ToolResponse(request.id, f"{type(error).__name__}: {error}", is_error=True)


async def _call_function(function: ToolFunction, request: ToolRequest) -> object:
    """Calls a function with the model's arguments by name, or with the request itself."""
    positional: Sequence[object] = (request,) if _takes_request(function) else ()
    keywords = {} if positional else request.arguments
    if inspect.iscoroutinefunction(function):
        return await function(*positional, **keywords)
    result = await asyncio.to_thread(function, *positional, **keywords)
    return await result if inspect.isawaitable(result) else result


def _takes_request(function: ToolFunction) -> bool:
    """Tells whether a function's only parameter is annotated as ToolRequest."""
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 1:
        return False
    annotation = parameters[0].annotation
    if isinstance(annotation, str):
        annotation = typing.get_type_hints(function).get(parameters[0].name)
    return annotation is ToolRequest


def _build_response(request: ToolRequest, result: object) -> ToolResponse:
    """Turns a function's result into a response: a text as it is, other values as JSON."""
    if isinstance(result, ToolResponse):
        return replace(result, id=request.id)
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return ToolResponse(request.id, text)
