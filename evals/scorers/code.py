"""The scorer `code` runs a Python answer with the item's tests in the runner's sandbox.

The target is an object with `test` and perhaps `entry_point` and `prompt` (HumanEval's form:
target_field `prompt+test+entry_point`), or the test itself, a text.
"""

import re
import secrets
from dataclasses import dataclass
from typing import Final

from evals.scorers.interface import (
    EMPTY_ANSWER,
    Options,
    RunProgram,
    Scorer,
    ScoreResult,
    no_score,
    right_or_wrong,
)
from evals.scorers.unwrap import parse_source
from evals.suites.items import Item
from harness.frame.errors import InputError

LONGEST: Final = 100_000  # characters; the scorer does not run a longer answer
BLOCKS: Final = re.compile(r"```[\w+-]*[^\S\n]*\n(.*?)(?:```|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Task:
    """A task. prompt: code that the answer may continue, often the head of a function."""

    prompt: str
    test: str
    entry_point: str


def task_of(item: Item) -> Task:
    target = {"test": item.target} if isinstance(item.target, str) else item.target
    if not isinstance(target, dict) or not isinstance(target.get("test"), str):
        raise InputError(
            f"item {item.id!r}: scorer 'code' needs a target with `test`, Python code"
        )
    parts = [target.get(name, "") for name in ("prompt", "test", "entry_point")]
    if not all(isinstance(part, str) for part in parts):
        raise InputError(f"item {item.id!r}: prompt, test and entry_point must be texts")
    return Task(*parts)


async def code(answer: str, item: Item, options: Options, run: RunProgram) -> ScoreResult:
    """Runs the tests with the whole answer (strict) and with its code in fences (lenient).

    Raises NotJudged.
    """
    if not answer.strip():
        return EMPTY_ANSWER
    task = task_of(item)
    if await _passes(answer, task, options, run):
        return right_or_wrong(strict=True, lenient=True)
    fenced = "\n".join(BLOCKS.findall(answer))
    if not fenced.strip():
        return right_or_wrong(strict=False, lenient=False)
    forgiven = await _passes(fenced, task, options, run)
    outside = BLOCKS.sub("", answer).strip()
    rule = "extra_prose" if outside else "code_fence"
    return right_or_wrong(strict=False, lenient=forgiven, rule=rule)


async def _passes(answer: str, task: Task, options: Options, run: RunProgram) -> bool:
    if len(answer) > LONGEST or "\0" in answer:
        return False
    # An answer that ends the process early cannot print this word.
    word = secrets.token_hex(16)
    program = program_of(answer, task, word, int(options["memory_mb"]))
    output = await run(program, options["timeout_s"])
    return output is not None and output.endswith(f"{word}\n")


def program_of(answer: str, task: Task, word: str, memory_mb: int) -> str:
    """Returns a program of answer and tests that prints `word` after the tests."""
    whole = not task.entry_point or defines(answer, task.entry_point)
    helpers = imports(task.prompt)
    limit = memory_mb * 2**20
    parts = (
        f"import resource\nresource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))",
        # A complete function still needs the prompt's imports.
        f"{helpers if whole else task.prompt}{answer}",
        task.test,
        f"check({task.entry_point})" if task.entry_point else "",
        f"print({word!r})",
    )
    return "".join(f"{part}\n" for part in parts)


def defines(text: str, name: str) -> bool:
    return (
        re.search(rf"^(?:async )?(?:def|class) {re.escape(name)}\b", text, re.MULTILINE)
        is not None
    )


def imports(prompt: str) -> str:
    """Returns the prompt if it is valid Python, else its import lines."""
    try:
        parse_source(prompt)
    except SyntaxError:
        lines = [line for line in prompt.splitlines() if re.match(r"(?:from|import) ", line)]
        return "".join(f"{line}\n" for line in lines)
    return f"{prompt}\n"


def check(item: Item, options: Options) -> str | None:
    for name, low, high in (("timeout_s", 0.1, 300), ("memory_mb", 64, 16_384)):
        value = options[name]
        if not isinstance(value, int | float) or not low <= value <= high:
            raise InputError(f"scorer 'code': option {name!r} must be from {low} to {high}")
    task = task_of(item)
    try:
        parse_source(task.test)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"item {item.id!r}: its test is not Python: {error}") from None
    return None


CODE = Scorer(
    "code", no_score, {"timeout_s": 10, "memory_mb": 512}, check=check, sandboxed=code
)
