"""Writes rows as LiteLLM's proxy stores them in its table of spend logs, with contents."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def spend_row(
    number: int,
    at: datetime,
    *,
    question: str = "",
    answer: str | None = None,
    caller: str = "",
    model: str = "base",
    failed: bool = False,
    **body: Any,
) -> Row:
    """Returns a row.

    Args:
        answer: of the model; None for the number of the question.
        body: further members of the request.
    """
    text = (
        question or f"Customer {number} asks about order {number * 37 % 1009}, item {number}."
    )
    request = {"model": model, "messages": [{"role": "user", "content": text}], **body}
    reply = answer if answer is not None else f"Order {number * 37 % 1009} is on its way."
    message = {"role": "assistant", "content": reply}
    response = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    return {
        "request_id": f"chatcmpl-{number}",
        "call_type": "acompletion",
        "startTime": at.isoformat(),
        "model": model,
        "messages": json.dumps({}),
        "response": json.dumps({} if failed else response),
        "proxy_server_request": json.dumps(request),
        "status": "failure" if failed else "success",
        "end_user": caller or f"user-{number}",
        "session_id": "",
    }


def spend_rows(now: datetime, count: int, days: int = 5, **changed: Any) -> list[Row]:
    """Returns one row of each of `count` callers, spread over the days before today."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return [
        spend_row(
            number,
            midnight - timedelta(days=1 + number % days) + timedelta(minutes=number % 1_440),
            **changed,
        )
        for number in range(count)
    ]


def write_spend_log(file: Path, rows: Sequence[Row]) -> Path:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file
