"""The benchmark's processes. `python -m benchmarks.evals.processes provider PORT` serves a
model that adds two numbers. `… worker CONFIG RUN FOLDER` is Swapproof's eval worker for one
run.
"""

import json
import os
import re
import sys
from pathlib import Path

from aiohttp import web

from harness.routing.records.runs import EvalRuns

NUMBERS = re.compile(r"(\d+) \+ (\d+)")


async def complete(request: web.Request) -> web.Response:
    body = json.loads(await request.read())
    asked = NUMBERS.search(body["messages"][-1]["content"])
    answer = str(int(asked[1]) + int(asked[2])) if asked else "?"
    message = {"role": "assistant", "content": answer}
    usage = {
        "prompt_tokens": 20,
        "completion_tokens": 2,
        "total_tokens": 22,
    }
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": "stop",
    }
    framed = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": body["model"],
    }
    return web.json_response(
        {
            **framed,
            "choices": [choice],
            "usage": usage,
        }
    )


def serve_provider(port: str) -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(port),
        print=None,
        access_log=None,
    )


def work(
    config: str,
    run: str,
    folder: str,
) -> None:
    # Late imports, because the provider process needs neither.
    from harness.app.eval_workers.run import run_worker  # noqa: PLC0415
    from harness.app.installation import open_installation  # noqa: PLC0415

    run_worker(
        Path(config),
        run,
        owner="benchmark",
        parent=os.getppid(),
    )
    installation = open_installation(Path(config))
    with installation.store.read() as tx:
        samples = EvalRuns(tx).samples(run)
    right = sum(sample.strict or 0.0 for sample in samples)
    installation.close()
    Path(folder, "result").write_text(f"{len(samples)} {right:.0f}", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "provider":
        serve_provider(*sys.argv[2:])
    else:
        work(*sys.argv[2:])
