import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from evals.sim import server
from harness.domain.errors import InputError

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


def answers(url: str, model: str) -> list[str]:
    items = server.simulator().bank.suites["extraction"][:40]
    return [answer_of(url, model, item.input) for item in items]


def answer_of(url: str, model: str, prompt: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    request = urllib.request.Request(  # noqa: S310 - a loopback URL of our own process
        f"{url}/v1/chat/completions", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
        text: str = json.load(answer)["choices"][0]["message"]["content"]
    return text


def test_two_processes_give_the_same_answers() -> None:
    with simulator_process() as (one, _), simulator_process() as (other, _):
        first = answers(one, "sim-base")

        assert first == answers(other, "sim-base") == answers(one, "sim-base")
        assert first != answers(other, "sim-equal")


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
