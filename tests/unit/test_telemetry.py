import json
import subprocess
import sys

import pytest
import structlog

from harness.frame.runtime import telemetry

PROGRAM = """
import logging, structlog
from harness.frame.runtime import telemetry

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


def run(program: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


def test_on_a_terminal_only_what_matters_is_a_short_line() -> None:
    lines = run(PROGRAM.replace("configure()", "configure(terminal=True)")).splitlines()

    assert len(lines) == 2
    for line in lines:
        clock, level, words = line.split("  ", 2)
        assert len(clock) == len("12:00:00")
        assert level.strip() == "error"
        assert words.strip().startswith("failed: error: ValueError: it broke (<string>:")


def test_nothing_that_is_logged_speaks_to_the_terminal() -> None:
    event = {
        "event": "no_routes",
        "level": "warning",
        "timestamp": "2026-11-22T07:00:01Z",
    }
    named = {
        **event,
        "found": ["a", "b"],
        "said": "\x1b[2Jgone\nnext",
        "none": [],
    }

    assert telemetry.format_line(None, "", named) == (
        "07:00:01  warning  no routes: found: a b, said:  [2Jgone next, none: none"
    )


def test_an_outage_is_a_line_in_ten_seconds_for_people_and_every_failover_in_json() -> None:
    failover = (
        "structlog.get_logger().warning('failover', route='chat', user='u1', target='sim/a', "
        "failure_class='overloaded', next_target='sim/b')"
    )
    program = f"import structlog\nfrom harness.frame.runtime import telemetry\n{failover}\n"
    program = program.replace("telemetry\n", "telemetry\ntelemetry.configure()\n", 1)
    program += f"{failover}\n"
    (line,) = run(program.replace("configure()", "configure(terminal=True)")).splitlines()
    assert line.endswith("failover: route chat left sim/a (overloaded) for sim/b")
    assert run(program).count('"user": "u1"') == 2

    times = iter([0.0, 1.0, 9.9, 10.0])
    few = telemetry.RepeatFilter(lambda: next(times))
    event = {
        "event": "failover",
        "route": "chat",
        "level": "warning",
    }
    assert few(None, "", event) == {**event, "left_out": 0}
    for _ in range(2):
        with pytest.raises(structlog.DropEvent):
            few(None, "", event)
    assert few(None, "", event) == {**event, "left_out": 2}


@pytest.mark.req("B5")
def test_every_line_is_json_and_tracebacks_have_no_variables() -> None:
    logged = run(PROGRAM)

    lines = [json.loads(line) for line in logged.splitlines()]
    assert [line["event"] for line in lines] == [
        "begun",
        "failed",
        "failed",
        "3 of them",
    ]
    assert [line["level"] for line in lines] == [
        "info",
        "error",
        "error",
        "warning",
    ]
    assert all(line["timestamp"] for line in lines)
    for failed in lines[1:3]:
        (error,) = failed["exception"]
        assert (error["exc_type"], error["exc_value"]) == (
            "ValueError",
            "it broke",
        )
        assert [frame["name"] for frame in error["frames"]] == [
            "<module>",
            "fail",
        ]
    assert "sk-sg-very-secret" not in logged
