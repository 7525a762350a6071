"""The provider of the benchmark: adds the two numbers it is asked for, at next to no cost.

python -m benchmarks.evals.provider PORT
"""

import json
import re
import sys

from aiohttp import web

NUMBERS = re.compile(r"(\d+) \+ (\d+)")


async def complete(request: web.Request) -> web.Response:
    body = json.loads(await request.read())
    asked = NUMBERS.search(body["messages"][-1]["content"])
    answer = str(int(asked[1]) + int(asked[2])) if asked else "?"
    return web.json_response(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": answer},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22},
        }
    )


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
