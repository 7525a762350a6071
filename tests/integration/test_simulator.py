import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic.types import ToolParam
from openai.types.responses import FunctionToolParam

from evals.sim import server
from evals.sim.simulator import Simulator
from harness.frame.errors import InputError

MODEL = "sim-base"
HELLO = "Say 12 words please."
PROMPT = {"model": MODEL, "messages": [{"role": "user", "content": HELLO}]}
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
}
TOOL: ToolParam = {"name": "weather", "input_schema": SCHEMA}
FUNCTION: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "parameters": SCHEMA,
    "strict": False,
}


@pytest.fixture
def http(sim: Simulator, sim_url: str) -> Iterator[httpx.Client]:
    sim.faults.clear()
    with httpx.Client(base_url=sim_url, timeout=60, trust_env=False) as client:
        yield client
    sim.faults.clear()


def chat(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post("/v1/chat/completions", json=PROMPT | fields)


def set_fault(
    http: httpx.Client,
    kind: str,
    model: str = MODEL,
    **fields: Any,
) -> None:
    set_ = http.put(f"/sim/faults/{model}", json={"kind": kind, **fields})
    assert set_.status_code == 200, set_.text


def test_until_count_and_delete_end_a_fault(http: httpx.Client) -> None:
    set_fault(http, "status", until_count=1)
    assert [chat(http).status_code for _ in range(2)] == [500, 200]

    set_fault(http, "status")
    assert chat(http).status_code == 500
    assert http.delete(f"/sim/faults/{MODEL}").status_code == 200
    assert chat(http).status_code == 200

    set_fault(http, "html", "*")
    assert http.delete("/sim/faults").status_code == 200
    assert chat(http).text.startswith("{")


def test_a_fault_of_later_turns_leaves_the_first_turn_alone(http: httpx.Client) -> None:
    set_fault(http, "status", from_turn=2, status=400)
    said = {"role": "assistant", "content": "hello"}
    first = PROMPT["messages"]
    assert chat(http).status_code == 200
    assert chat(http, messages=[*first, said]).status_code == 200
    assert chat(http, messages=[*first, said, *first]).status_code == 400


@pytest.mark.req("F6", "F7")
def test_the_model_behind_an_alias_changes_openly_or_in_silence(http: httpx.Client) -> None:
    name = "sim-equal"

    def replaced(**behind: object) -> tuple[str, str]:
        changed = http.post(f"/sim/profiles/{name}", json=behind)
        assert changed.status_code == 200, changed.text
        answer = chat(http, model=name).json()
        return answer["model"], answer["system_fingerprint"]

    plain = chat(http, model=name).json()["system_fingerprint"]
    assert replaced(like="sim-worse") != (name, plain)
    before = replaced(build="b1")
    assert before == (name, "simulated-swapproof-b1")
    assert replaced(like="sim-worse", build="b1") == before
    assert replaced(like="sim-worse", serves="other-1")[0] == "other-1"
    embedded = http.post("/v1/embeddings", json={"model": name, "input": "x"})
    assert embedded.json()["model"] == "other-1"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        (
            "PUT",
            "/sim/faults/sim-base",
            {"kind": "explode"},
            400,
            "kind: unknown word",
        ),
        ("PUT", "/sim/faults/nobody", {"kind": "hang"}, 404, "nobody"),
        (
            "POST",
            "/sim/profiles/sim-base",
            {"skil": 1},
            400,
            "skil: unknown key",
        ),
        (
            "POST",
            "/sim/profiles/sim-base",
            {"like": "sim-wors"},
            404,
            "sim-wors",
        ),
        ("GET", "/sim/levers", None, 404, "no switch"),
        ("GET", "/elsewhere", None, 404, "/elsewhere"),
        ("POST", "/v1/chat/completions", b"not json", 400, "parse the JSON"),
        (
            "POST",
            "/v1/chat/completions",
            {"messages": []},
            400,
            "model parameter",
        ),
        ("POST", "/v1/embeddings", {"model": "sim-base"}, 400, "'input'"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    http: httpx.Client,
    method: str,
    path: str,
    body: object,
    status: int,
    says: str,
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = http.request(method, path, content=content)

    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]


async def test_only_loopback_clients_reach_the_switches() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {
            "type": "http.request",
            "body": b"",
            "more_body": False,
        }

    async def send(message: Any) -> None:
        sent.append(message)

    app = server.build_app(server.simulator())
    for client, status in [
        (("192.0.2.7", 5), 403),
        (None, 403),
        (("::1", 5), 200),
    ]:
        sent.clear()
        scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": "/sim/stats",
            "client": client,
            "headers": [],
        }
        await app(scope, receive, send)
        assert sent[0]["status"] == status


PROGRAM = """
import sys
from evals.sim.server import serve_forever
assert "inspect_ai" not in sys.modules, "the simulator must stay light"
say = lambda url: print(url, flush=True)
serve_forever(port=0, time_scale=0, on_ready=say)
print("ended")
"""


@contextmanager
def simulator_process() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    with subprocess.Popen(  # noqa: S603 - our own program, in our own interpreter
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.terminate()
            process.wait(60)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_while_an_answer_hangs(sign: signal.Signals) -> None:
    with (
        simulator_process() as (url, process),
        httpx.Client(base_url=url) as client,
    ):
        set_fault(client, "hang", "*")
        hanging = HTTPConnection(url.removeprefix("http://"))
        hanging.request("POST", "/v1/chat/completions", json.dumps(PROMPT))
        process.send_signal(sign)

        assert process.wait(60) == 0
        assert process.stdout
        assert process.stdout.read() == "ended\n"
        hanging.close()


def test_a_taken_port_is_one_clear_sentence() -> None:
    with server.open_listener("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(InputError, match=f"127.0.0.1:{port}.*choose another port"):
            server.serve_forever(port=port)


@pytest.fixture
def claude(sim_url: str, sim: Simulator) -> Iterator[anthropic.Anthropic]:
    sim.faults.clear()
    with anthropic.Anthropic(base_url=sim_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def client(sim_url: str, sim: Simulator) -> Iterator[openai.OpenAI]:
    sim.faults.clear()
    with openai.OpenAI(base_url=f"{sim_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def create_message(claude: anthropic.Anthropic, **more: object) -> anthropic.types.Message:
    asked = {
        "model": MODEL,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": HELLO}],
    }
    message: anthropic.types.Message = claude.messages.create(**{**asked, **more})  # type: ignore[call-overload]
    return message


def test_an_answer_is_cut_at_its_limit(
    claude: anthropic.Anthropic, client: openai.OpenAI
) -> None:
    assert create_message(claude, max_tokens=2).stop_reason == "max_tokens"
    cut = client.responses.create(model=MODEL, input=HELLO, max_output_tokens=2)
    assert cut.status == "incomplete"
    assert cut.incomplete_details
    assert cut.incomplete_details.reason == "max_output_tokens"


@pytest.mark.req("B7")
def test_after_a_tools_result_both_answer_in_words(
    claude: anthropic.Anthropic, client: openai.OpenAI
) -> None:
    message = create_message(
        claude,
        tools=[TOOL],
        tool_choice={"type": "any"},
        messages=[
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "content": [
                    {
                        "type": "tool_use",
                        "id": "t",
                        "name": "weather",
                        "input": {},
                    }
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t",
                        "content": "20 C",
                    }
                ],
            },
        ],
    )
    assert message.content[0].type == "text"

    response = client.responses.create(
        model=MODEL,
        tools=[FUNCTION],
        tool_choice="required",
        input=[
            {"role": "user", "content": "x"},
            {
                "type": "function_call",
                "call_id": "c",
                "name": "weather",
                "arguments": "{}",
            },
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": "20 C",
            },
        ],
    )
    assert response.output_text


@pytest.mark.req("B7")
def test_each_call_of_a_conversation_has_an_id_of_its_own(client: openai.OpenAI) -> None:
    turns: list[Any] = [{"role": "user", "content": "Ask twice."}]
    ids = set()
    for _ in range(3):
        (call,) = client.responses.create(
            model=MODEL,
            tools=[FUNCTION],
            tool_choice="required",
            input=turns,
        ).output
        assert call.type == "function_call"
        ids.add(call.call_id)
        output = {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": "20 C",
        }
        turns += [call, output, {"role": "user", "content": "Ask twice."}]

    assert len(ids) == 3


@pytest.mark.req("B7")
def test_both_tools_are_called_at_once_where_the_prompt_says_so(
    claude: anthropic.Anthropic, client: openai.OpenAI
) -> None:
    prompt = "Ask both tools at once."
    alarm: ToolParam = {**TOOL, "name": "alarm"}
    with claude.messages.stream(
        model=MODEL,
        max_tokens=100,
        messages=[{"role": "user", "content": prompt}],
        tools=[TOOL, alarm],
        tool_choice={"type": "any"},
    ) as stream:
        blocks = stream.get_final_message().content
    assert [block.name for block in blocks if block.type == "tool_use"] == [
        "weather",
        "alarm",
    ]

    functions: list[Any] = [FUNCTION, {**FUNCTION, "name": "alarm"}]
    for at_once, names in (
        (True, ["weather", "alarm"]),
        (False, ["weather"]),
    ):
        with client.responses.stream(
            model=MODEL,
            input=prompt,
            tools=functions,
            tool_choice="required",
            parallel_tool_calls=at_once,
        ) as events:
            calls: list[Any] = events.get_final_response().output
        assert [call.name for call in calls] == names
        assert all(json.loads(call.arguments).keys() == {"city"} for call in calls)
