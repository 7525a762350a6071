import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evals.scorers import ScoreResult, find_scorer
from evals.scorers.interface import NotJudged, RunProgram
from evals.suites.items import Item
from evals.suites.suite import load_suite
from harness.evals.settings import SuiteSettings
from harness.frame.errors import ConfigError, InputError

RIGHT = ScoreResult(1, 1)
WRONG = ScoreResult(0, 0)
TWICE = {
    "prompt": "import math\n\ndef twice(n):\n    '''Double.'''\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    "entry_point": "twice",
}


async def run_here(program: str, timeout_s: float) -> str | None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(program.encode()), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    return output.decode() if process.returncode == 0 else None


def judged(
    answer: str,
    target: object = TWICE,
    run: RunProgram = run_here,
    **given: object,
) -> ScoreResult:
    chosen = find_scorer("code")
    item = Item("i", "asked", target)
    options = chosen.options(given)
    assert chosen.check(item, options) is None
    scorer = chosen.sandboxed
    assert scorer is not None

    async def score() -> ScoreResult:
        return await scorer(answer, item, options, run)

    return asyncio.run(score())


@pytest.mark.req("A8")
@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        ("    return 2 * n", RIGHT),
        ("def twice(n):\n    return math.floor(2 * n)", RIGHT),
        (
            "```python\ndef twice(n):\n    return 2 * n\n```",
            ScoreResult(0, 1, "code_fence"),
        ),
        (
            "Sure:\n```\n    return n + n\n```\nDone.",
            ScoreResult(0, 1, "extra_prose"),
        ),
        ("    return n", WRONG),
        ("```python\ndef twice(n):\n    return n\n```", WRONG),
        ("I cannot do that.", WRONG),
        (" \n", ScoreResult(0, 0, "empty_answer")),
    ],
)
def test_code_is_right_when_its_tests_run_to_their_end(
    answer: str, scored: ScoreResult
) -> None:
    assert judged(answer) == scored


def test_the_target_may_be_the_test_alone() -> None:
    assert judged("x = 3", "assert x == 3") == RIGHT


@pytest.mark.parametrize(
    "answer",
    [
        "    import sys; sys.exit(0)",
        "    import os; os._exit(0)",
        "    print('passed'); raise SystemExit",
        "    return 4\nexit()",
    ],
)
def test_an_answer_that_ends_early_has_passed_nothing(answer: str) -> None:
    assert judged(answer) == WRONG


def test_an_answer_that_does_not_end_or_takes_too_much_memory_is_wrong() -> None:
    assert judged("    while True: pass", timeout_s=1) == WRONG
    assert judged("    return len(bytearray(2**30)) and 4", memory_mb=256) == WRONG


def test_a_sandbox_that_fails_is_nothing_against_the_answer() -> None:
    async def broken(_program: str, _timeout_s: float) -> str | None:
        raise NotJudged("the container is gone")

    with pytest.raises(NotJudged, match="the container is gone"):
        judged("    return 4", run=broken)


def test_without_docker_the_scorer_is_refused_unless_the_operator_takes_the_risk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from evals.runner import code_sandbox  # noqa: PLC0415 - Inspect loads for two seconds

    code_sandbox.why_no_docker.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigError, match="there is no `docker` on PATH"):
        code_sandbox.find_sandbox(uncontained=False)

    assert code_sandbox.find_sandbox(uncontained=True) == "local"
    code_sandbox.why_no_docker.cache_clear()


def test_with_docker_inspect_starts_a_container_without_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from evals.runner import code_sandbox  # noqa: PLC0415 - as above

    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 28.2\n", encoding="utf-8")
    docker.chmod(0o755)
    code_sandbox.why_no_docker.cache_clear()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    found = code_sandbox.find_sandbox(uncontained=False)

    assert found == ("docker", str(code_sandbox.COMPOSE))
    assert "network_mode: none" in code_sandbox.COMPOSE.read_text(encoding="utf-8")
    code_sandbox.why_no_docker.cache_clear()


@pytest.mark.req("F6")
def test_the_pin_of_a_suite_says_that_code_ran_uncontained(tmp_path: Path) -> None:
    data = tmp_path / "code.jsonl"
    data.write_text(
        json.dumps(
            {
                "id": "a",
                "input": "Double.",
                "target": TWICE,
            }
        )
        + "\n"
    )
    contained = SuiteSettings("coding", path=data, scorer="code")
    pins = [
        load_suite(config).pin
        for config in (contained, replace(contained, code_uncontained=True))
    ]

    assert pins[1].scorer_alone.endswith("+uncontained")
    assert not pins[0].scorer_alone.endswith("+uncontained")
    assert pins[0].digest != pins[1].digest


@pytest.mark.parametrize(
    ("target", "options", "told"),
    [
        ({"entry_point": "f"}, {}, "needs a target with `test`"),
        ({"test": "x", "entry_point": 3}, {}, "must be texts"),
        ("def", {}, "its test is not Python"),
        (
            "x",
            {"timeout_s": 0},
            "option 'timeout_s' must be from 0.1 to 300",
        ),
        ("x", {"memory_mb": 1}, "option 'memory_mb' must be from 64"),
    ],
)
def test_what_cannot_be_run_is_told(
    target: object,
    options: dict[str, object],
    told: str,
) -> None:
    chosen = find_scorer("code")

    with pytest.raises(InputError, match=told):
        chosen.check(Item("i", "asked", target), chosen.options(options))
