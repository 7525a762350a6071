"""The clients that people use, unchanged, before targets that speak another protocol.

Each runs a tool loop with streaming through a router's worker, in processes of its own, whose
provider refuses what the real one refuses (`tests.support.providers.strict_chat`,
`tests.wire`).
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import anthropic
import pytest
from anthropic import beta_tool
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.support.control.control_plane import suite_file
from tests.support.providers import strict_chat
from tests.support.providers.scripted_upstream import running_upstream
from tests.support.router.router_process import Routed, routed
from tests.support.site.npm_clients import tool_loop
from tests.wire import anthropic as claude
from tests.wire import gemini
from tests.wire.server import KEY, Reading, Reply, Usage, serving

MODEL = "strict-1"
SUNNY = "Oslo is sunny and Rome is sunny"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

USAGE: Final = Usage(input=20, output=9, cached=8, reasoning=3)

pytestmark = [pytest.mark.req("A1", "B7"), pytest.mark.timeout(900)]


def weather(read: Reading) -> Reply:
    """What `tests.support.providers.strict_chat` plays, in any protocol."""
    results = read.turns[-1].results
    if results:
        return Reply(" and ".join(results), usage=USAGE)
    calls = tuple(("weather", {"city": city}) for city in strict_chat.CITIES)
    return Reply("Let me look.", calls=calls, stop="tools", usage=USAGE)


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    """Routes `chat`, whose provider has chats alone, `claude` and `gemini`."""
    folder = tmp_path_factory.mktemp("sdks")
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("WIRE_KEY", KEY)
        upstream = stack.enter_context(running_upstream())
        upstream.turns[MODEL] = strict_chat.script_turn
        chats = {"kind": "groq", "api_base": upstream.url, "api_key_env": "WIRE_KEY"}
        providers: dict[str, Any] = {"chats": chats}
        targets = {"chat": f"chats/{MODEL}"}
        for name, kind, wire in (
            ("claude", "anthropic", claude),
            ("gemini", "gemini", gemini),
        ):
            server = wire.strict()
            server.answers = weather
            stack.enter_context(serving(server))
            providers[name] = {
                "kind": kind,
                "api_base": server.api_base,
                "api_key_env": "WIRE_KEY",
            }
            targets[name] = f"{name}/{wire.MODEL}"
        place = stack.enter_context(
            routed(
                folder,
                upstream.url,
                providers=providers,
                suites={"colours": {"path": str(suite_file(folder)), "scorer": "exact"}},
                routes={
                    name: {"incumbent": target, "suites": ["colours"]}
                    for name, target in targets.items()
                },
            )
        )
        place.start()
        yield place


@pytest.mark.parametrize(
    ("route", "responses"), [("chat", True), ("claude", False), ("gemini", False)]
)
def test_langchain(router: Routed, route: str, *, responses: bool) -> None:
    model = ChatOpenAI(
        model=route,
        base_url=f"{router.url}/v1",
        api_key=SecretStr(router.key),
        max_retries=0,
        use_responses_api=responses,
        stream_usage=True,
    ).bind_tools([{"name": "weather", "description": "Of a city", "parameters": SCHEMA}])
    messages: list[Any] = [HumanMessage("Weather?")]
    for _ in range(2):
        final: AIMessageChunk | None = None
        for piece in model.stream(messages):
            assert isinstance(piece, AIMessageChunk)
            final = piece if final is None else final + piece
        assert final is not None
        messages.append(final)
        messages += [
            ToolMessage(f"{call['args']['city']} is sunny", tool_call_id=call["id"])
            for call in final.tool_calls
        ]

    assert messages[-1].text.strip() == SUNNY
    assert messages[-1].usage_metadata["output_tokens"] == 9


@pytest.mark.parametrize(
    ("protocol", "route"),
    [
        ("messages", "chat"),
        ("messages", "gemini"),
        ("responses", "chat"),
        ("chat", "claude"),
        ("chat", "gemini"),
    ],
)
def test_vercels_ai_sdk(router: Routed, protocol: str, route: str) -> None:
    told = tool_loop(protocol, f"{router.url}/v1", router.key, route)

    assert told["cities"] == ["Oslo", "Rome"]
    assert told["steps"] == ["tool-calls", "stop"]
    assert told["text"] == SUNNY
    assert told["pieces"] > 2
    assert told["output_tokens"] == 18


@pytest.mark.parametrize("route", ["chat", "claude", "gemini"])
def test_anthropics_tool_runner_sends_the_whole_conversation(
    router: Routed, route: str
) -> None:
    @beta_tool
    def weather(city: str) -> str:
        """Of a city."""
        return f"{city} is sunny"

    with anthropic.Anthropic(base_url=router.url, api_key=router.key, max_retries=0) as client:
        runner = client.beta.messages.tool_runner(
            model=route,
            max_tokens=99,
            tools=[weather],
            messages=[{"role": "user", "content": "Weather?"}],
        )
        last = runner.until_done()

    assert "".join(block.text for block in last.content if block.type == "text") == SUNNY
