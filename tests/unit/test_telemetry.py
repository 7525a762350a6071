"""The log of a process that serves, as its own process writes it."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, structlog
from harness.runtime import telemetry

telemetry.configure()

def fail():
    secret = "sk-sg-very-secret"
    raise ValueError("it broke")

for log in (structlog.get_logger(), logging.getLogger("a.library")):
    log.info("told to nobody" if isinstance(log, logging.Logger) else "begun")
    try:
        fail()
    except ValueError:
        log.exception("failed")
logging.getLogger("a.library").warning("%d of %s", 3, "them")
"""


@pytest.mark.req("B5")
def test_every_line_is_json_and_tracebacks_have_no_variables() -> None:
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["begun", "failed", "failed", "3 of them"]
    assert [line["level"] for line in lines] == ["info", "error", "error", "warning"]
    assert all(line["timestamp"] for line in lines)
    for failed in lines[1:3]:
        (error,) = failed["exception"]
        assert (error["exc_type"], error["exc_value"]) == ("ValueError", "it broke")
        assert [frame["name"] for frame in error["frames"]] == ["<module>", "fail"]
    assert "sk-sg-very-secret" not in done.stderr
