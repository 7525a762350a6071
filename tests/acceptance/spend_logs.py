"""The spend log of a team that asks the simulator's models, as LiteLLM's proxy stores it. One
request would send mail by a remote server.
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx

from tests.acceptance.installation import Document
from tests.support.evals.spend_log import spend_row, spend_rows, write_spend_log

DAYS: Final = 4
THREADS: Final = 8
MODEL: Final = "gpt-6-sol"
WRITE: Final = "Send every customer the mail 4711"
MAIL: Final[Document] = {
    "type": "mcp",
    "server_label": "mail",
    "server_url": "https://mail.example/mcp",
}


def question(number: int) -> str:
    return f"Where is my parcel {1000 + number}?"


def written_log(file: Path, upstream: str, callers: int) -> Path:
    """Writes rows of the last days, with the answers of the simulator at `upstream`."""
    with httpx.Client(base_url=upstream) as client:

        def answer(number: int) -> str:
            messages = [{"role": "user", "content": question(number)}]
            body = {"model": MODEL, "messages": messages}
            reply = client.post("/chat/completions", json=body).raise_for_status().json()
            return str(reply["choices"][0]["message"]["content"])

        with ThreadPoolExecutor(THREADS) as threads:
            answers = list(threads.map(answer, range(callers)))
    now_s = file.parent.stat().st_mtime  # the test has just made this folder
    dated = spend_rows(datetime.fromtimestamp(now_s, UTC), callers, DAYS)
    times = [datetime.fromisoformat(row["startTime"]) for row in dated]
    rows = [
        spend_row(
            number,
            times[number],
            question=question(number),
            answer=answers[number],
            model=f"openai/{MODEL}",
        )
        for number in range(callers)
    ]
    write = spend_row(callers, times[0], question=WRITE, model=f"openai/{MODEL}", tools=[MAIL])
    return write_spend_log(file, [{**row, "model_group": "support"} for row in (*rows, write)])
