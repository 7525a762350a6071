"""How long a proposal waits for its first question: from the moment that it is stored to the
first request at its candidate's provider, with a real control process.

    python benchmarks/evals/first_question.py [--proposals 6]

The first proposal meets a control process that has run no evals yet; the others one whose
template of workers has imported Inspect. The CPU time, user and system, is what the template
and the workers of both models have used by then since the proposal: on a busy machine it says
more than the wait.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parents[2]))

import psutil
import yaml

from benchmarks.router.processes import free_port, start, wait_for
from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from harness.control.context import Context
from harness.control.proposals import submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import seed
from harness.domain.operations.access import SYSTEM

ITEMS, PATIENCE_S, SETTLES_S = 60, 120.0, 5.0
# As installed: modules are compiled once, and not at each start.
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}


class Provider(BaseHTTPRequestHandler):
    """Answers every question alike, and notes when a model was first asked."""

    protocol_version = "HTTP/1.1"
    first: ClassVar[dict[str, float]] = {}

    def do_POST(self) -> None:
        asked_at = time.monotonic()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.first.setdefault(body["model"], asked_at)
        message = {"role": "assistant", "content": "4"}
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22},
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing: stdout is for the table."""


def configure(folder: Path, provider: int, control: int, proposals: int) -> Path:
    """One route for each proposal: a route has one open at a time."""
    items = [{"input": f"What is {n} + 1?", "target": f"{n + 1}"} for n in range(ITEMS)]
    data = folder / "sums.jsonl"
    data.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
    models = ["incumbent", *(f"candidate-{n}" for n in range(proposals))]
    document = {
        "home": str(folder / "home"),
        "control": {"port": control},
        "providers": {
            "here": {
                "api_base": f"http://127.0.0.1:{provider}/v1",
                "prices": dict.fromkeys(models, price),
            }
        },
        "suites": {"sums": {"path": str(data), "scorer": "exact"}},
        "routes": {
            f"route-{n}": {"incumbent": "here/incumbent", "suites": ["sums"]}
            for n in range(proposals)
        },
    }
    config = folder / "swapgate.yaml"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    return config


def cpu_s_below(control: int) -> dict[int, float]:
    """CPU time of a control process's template, and of the workers under way, by pid."""
    used = {}
    for process in psutil.Process(control).children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            times = process.cpu_times()
            used[process.pid] = times.user + times.system
    return used


def waited(ctx: Context, number: int, control: int) -> tuple[float, float]:
    """Proposes a candidate; seconds from the stored proposal to its first question, and the
    CPU time that its evals have used by then.
    """
    model, before = f"candidate-{number}", cpu_s_below(control)
    submission.create_proposal(ctx, SYSTEM, ProposalRequest(f"route-{number}", f"here/{model}"))
    proposed_at = time.monotonic()
    while model not in Provider.first:
        if time.monotonic() - proposed_at > PATIENCE_S:
            sys.exit(f"{model} was not asked within {PATIENCE_S:.0f} s")
        time.sleep(0.005)
    used_s = sum(used - before.get(pid, 0.0) for pid, used in cpu_s_below(control).items())
    return Provider.first[model] - proposed_at, used_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proposals", type=int, default=6)
    count = parser.parse_args().proposals
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        provider = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
        stack.callback(provider.shutdown)
        threading.Thread(target=provider.serve_forever, daemon=True).start()
        port = free_port()
        config = configure(folder, provider.server_port, port, count)
        installation = open_installation(config, create_secret=True)
        stack.callback(installation.close)
        upgrade_database(installation.settings)
        seed.apply_seed(installation.context, installation.settings)
        command = [
            sys.executable,
            "-m",
            "swapgate",
            "--config",
            str(config),
            "serve",
            "control",
        ]
        control = start(command, stack, log=folder / "control.log", env=COMPILED)
        wait_for(port, control, PATIENCE_S)
        time.sleep(SETTLES_S)
        waits = []
        for number in range(count):
            waits.append(waited(installation.context, number, control.pid))
            time.sleep(SETTLES_S)
        (first_s, first_cpu_s), *rest = waits
        print(
            f"first proposal: {first_s:.1f} s from the proposal to the first question, "
            f"{first_cpu_s:.2f} s of CPU time"
        )
        if rest:
            seconds = [wait_s for wait_s, _ in rest]
            print(
                f"the others: median {statistics.median(seconds):.1f} s "
                f"({min(seconds):.1f} to {max(seconds):.1f}, {len(rest)} proposals), "
                f"{statistics.median(cpu_s for _, cpu_s in rest):.2f} s"
            )


if __name__ == "__main__":
    main()
