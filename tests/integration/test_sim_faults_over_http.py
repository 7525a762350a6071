import http.client
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from evals.sim import server
from evals.sim.simulator import Simulator
from harness.frame.errors import InputError
from tests.support.providers import simulator_thread

MODEL = "sim-base"
PROMPT = {"model": MODEL, "messages": [{"role": "user", "content": "Say 12 words please."}]}


@pytest.fixture(scope="module")
def module_sim() -> Simulator:
    return server.simulator(time_scale=0)


@pytest.fixture(scope="module")
def address(module_sim: Simulator) -> Iterator[tuple[str, int]]:
    with simulator_thread.serve_in_thread(module_sim) as url:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        yield parts.hostname, parts.port


@pytest.fixture
def sim(module_sim: Simulator) -> Iterator[Simulator]:
    module_sim.faults.clear()
    module_sim.stats.clear()
    yield module_sim
    module_sim.faults.clear()


@pytest.fixture
def at(sim: Simulator, address: tuple[str, int]) -> tuple[str, int]:  # noqa: ARG001 - cleared
    return address


def call(
    at: tuple[str, int], method: str, path: str, body: object = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*at, timeout=60)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def chat(at: tuple[str, int], **fields: Any) -> tuple[int, dict[str, str], bytes]:
    return call(at, "POST", "/v1/chat/completions", PROMPT | fields)


def set_fault(at: tuple[str, int], kind: str, **fields: Any) -> None:
    status, _, body = call(at, "PUT", f"/sim/faults/{MODEL}", {"kind": kind, **fields})
    assert status == 200, body


def test_until_count_and_delete_end_a_fault(at: tuple[str, int]) -> None:
    set_fault(at, "status", until_count=1)
    assert [chat(at)[0] for _ in range(2)] == [500, 200]

    set_fault(at, "status")
    assert chat(at)[0] == 500
    assert call(at, "DELETE", f"/sim/faults/{MODEL}")[0] == 200
    assert chat(at)[0] == 200

    assert call(at, "PUT", "/sim/faults/*", {"kind": "html"})[0] == 200
    assert call(at, "DELETE", "/sim/faults")[0] == 200
    assert chat(at)[2].startswith(b"{")


@pytest.mark.req("F6", "F7")
def test_the_model_behind_an_alias_changes_openly_or_in_silence(at: tuple[str, int]) -> None:
    name = "sim-equal"

    def replaced(**behind: object) -> tuple[str, str]:
        status, _, said = call(at, "POST", f"/sim/profiles/{name}", behind)
        assert status == 200, said
        answer = json.loads(chat(at, model=name)[2])
        return answer["model"], answer["system_fingerprint"]

    plain = json.loads(chat(at, model=name)[2])["system_fingerprint"]
    assert replaced(like="sim-worse") != (name, plain)
    before = replaced(build="b1")
    assert before == (name, "simulated-swapgate-b1")
    assert replaced(like="sim-worse", build="b1") == before
    assert replaced(like="sim-worse", serves="other-1")[0] == "other-1"
    embedded = call(at, "POST", "/v1/embeddings", {"model": name, "input": "x"})[2]
    assert json.loads(embedded)["model"] == "other-1"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("PUT", "/sim/faults/sim-base", {"kind": "explode"}, 400, "kind: unknown word"),
        ("PUT", "/sim/faults/nobody", {"kind": "hang"}, 404, "nobody"),
        ("POST", "/sim/profiles/sim-base", {"skil": 1}, 400, "skil: unknown key"),
        ("POST", "/sim/profiles/sim-base", {"like": "sim-wors"}, 404, "sim-wors"),
        ("GET", "/sim/levers", None, 404, "no switch"),
        ("GET", "/elsewhere", None, 404, "/elsewhere"),
        ("POST", "/v1/chat/completions", b"not json", 400, "parse the JSON"),
        ("POST", "/v1/chat/completions", {"messages": []}, 400, "model parameter"),
        ("POST", "/v1/embeddings", {"model": "sim-base"}, 400, "'input'"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    at: tuple[str, int], method: str, path: str, body: object, status: int, says: str
) -> None:
    found, _, answer = call(at, method, path, body)

    assert found == status
    assert says in json.loads(answer)["error"]["message"]


async def test_only_loopback_clients_reach_the_switches() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    app = server.build_app(server.simulator())
    for client, status in [(("192.0.2.7", 5), 403), (None, 403), (("::1", 5), 200)]:
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
    with simulator_process() as (url, process):
        switch = urllib.request.Request(  # noqa: S310 - as above
            f"{url}/sim/faults/*", b'{"kind": "hang"}', method="PUT"
        )
        with urllib.request.urlopen(switch, timeout=30) as done:  # noqa: S310 - as above
            assert done.status == 200
        host, port = url.removeprefix("http://").split(":")
        body = b'{"model": "sim-base", "messages": [{"role": "user", "content": "x"}]}'
        with socket.create_connection((host, int(port))) as hanging:
            hanging.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: "
                + str(len(body)).encode()
                + b"\r\n\r\n"
                + body
            )
            process.send_signal(sign)

            assert process.wait(60) == 0
        assert process.stdout
        assert process.stdout.read() == "ended\n"


def test_a_taken_port_is_one_clear_sentence() -> None:
    with server.open_listener("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(InputError, match=f"127.0.0.1:{port}.*choose another port"):
            server.serve_forever(port=port)
