"""A model's code: right, wrong, in a wrong form, and kept from doing harm."""

import json
import os
from pathlib import Path

import pytest

from evals.samples import Item, load_items
from evals.scorers import Scored, scorer
from evals.scorers.cell import PROTECTIONS
from evals.scorers.code import protection
from harness.domain.errors import InputError

RIGHT, WRONG, NONE = Scored(1, 1), Scored(0, 0), Scored(None, None)
TWICE = {
    "prompt": "import math\n\ndef twice(n):\n    '''Double.'''\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    "entry_point": "twice",
}
SHARED = Path(os.environ.get("SWAPGATE_SHARED", Path(__file__).parents[3] / "shared"))
HUMANEVAL = SHARED / "evaldata" / "humaneval.jsonl"


def judged(answer: str, target: object = TWICE, **given: object) -> Scored:
    chosen = scorer("code")
    item, options = Item("i", "asked", target), chosen.options(given)
    assert chosen.check(item, options) is None
    return chosen.score(answer, item, options)


@pytest.mark.req("A8")
@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        ("    return 2 * n", RIGHT),
        ("def twice(n):\n    return math.floor(2 * n)", RIGHT),
        ("```python\ndef twice(n):\n    return 2 * n\n```", Scored(0, 1, "code_fence")),
        ("Sure:\n```\n    return n + n\n```\nDone.", Scored(0, 1, "extra_prose")),
        ("    return n", WRONG),
        ("```python\ndef twice(n):\n    return n\n```", WRONG),
        ("I cannot do that.", WRONG),
        (" \n", NONE),
    ],
)
def test_code_is_right_when_its_tests_run_to_their_end(answer: str, scored: Scored) -> None:
    assert judged(answer) == scored


def test_the_target_may_be_the_test_alone() -> None:
    assert judged("x = 3", "assert x == 3") == RIGHT


@pytest.mark.parametrize(
    "answer",
    [
        "    raise SystemExit(0)",
        "    import os\n    os._exit(0)",
        "    print('network namespace')\n    return 0",
        "    import threading\n    return 0",
    ],
)
def test_an_answer_that_ends_early_has_passed_nothing(answer: str) -> None:
    assert judged(answer) == WRONG


@pytest.mark.parametrize(
    "answer",
    [
        "    while True: pass",
        "    import time; time.sleep(60)",
    ],
)
def test_an_answer_that_does_not_end_is_wrong(answer: str) -> None:
    assert judged(answer, timeout_s=1.5) == WRONG


def test_memory_is_bounded() -> None:
    assert judged("    return 4 if bytearray(2**30) else 0", memory_mb=256) == WRONG
    assert judged("    return 4 if bytearray(2**20) else 0", memory_mb=256) == RIGHT


@pytest.mark.parametrize(
    "reach",
    [
        "import socket; socket.create_connection(('127.0.0.1', 1))",
        "import socket; socket.socket()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.fork()",
        "import ctypes; ctypes.CDLL(None)",
        "import multiprocessing.util as m; m.spawnv_passfds(b'/bin/true', [b'true'], [])",
        "import _posixsubprocess",
        "open('found.txt', 'w')",
        "import os; os.remove('/nonexistent')",
        "import pathlib; pathlib.Path('found.txt').write_text('x')",
        "open('/etc/passwd')",
        "import os; open(f'/proc/{os.getppid()}/environ', 'rb')",
        "import os; os.listdir(os.path.dirname(os.getcwd()))",
        "import os; os.scandir('/')",
        "import os; os.chdir('/etc')",
        "import os; os.open('../../etc/passwd', os.O_RDONLY)",
    ],
)
def test_code_that_reaches_out_is_refused(reach: str) -> None:
    caught = f"    try:\n        {reach}\n    except PermissionError:\n        return 4\n"

    assert judged(caught) == RIGHT


def test_code_reads_its_own_folder_and_uses_the_standard_library() -> None:
    uses = (
        "    import collections, csv, datetime, decimal, fractions, heapq, itertools, os, re\n"
        "    import statistics, typing, zoneinfo, json, hashlib, bisect, random, string, copy\n"
        "    return 4 if os.listdir('.') == os.listdir() == [] else 0\n"
    )

    assert judged(uses) == RIGHT


def test_code_sees_neither_our_environment_nor_our_packages() -> None:
    looks = (
        "    import os, importlib.util\n"
        "    hidden = not os.environ.get('PATH') and not importlib.util.find_spec('pydantic')\n"
        "    return 4 if hidden else 0\n"
    )

    assert judged(looks) == RIGHT


def test_it_is_said_what_keeps_code_off_the_network() -> None:
    assert protection() in PROTECTIONS


@pytest.mark.parametrize(
    ("target", "options", "told"),
    [
        ({"entry_point": "f"}, {}, "needs a target with `test`"),
        ({"test": "x", "entry_point": 3}, {}, "must be texts"),
        ("def", {}, "its test is not Python"),
        ("x", {"timeout_s": 0}, "option 'timeout_s' must be from 0.1 to 300"),
        ("x", {"memory_mb": 1}, "option 'memory_mb' must be from 64"),
    ],
)
def test_what_cannot_be_run_is_told(
    target: object, options: dict[str, object], told: str
) -> None:
    chosen = scorer("code")

    with pytest.raises(InputError, match=told):
        chosen.check(Item("i", "asked", target), chosen.options(options))


@pytest.mark.skipif(not HUMANEVAL.is_file(), reason="no public eval data; set SWAPGATE_SHARED")
def test_humanevals_own_solutions_pass_and_empty_ones_do_not() -> None:
    items = load_items(
        HUMANEVAL,
        name="humaneval",
        input_field="prompt",
        target_field="prompt+test+entry_point",
    )
    lines = HUMANEVAL.read_text(encoding="utf-8").splitlines()
    solutions = [json.loads(line)["canonical_solution"] for line in lines]
    chosen = scorer("code")
    options = chosen.options({})

    for item, solution in list(zip(items, solutions, strict=True))[::16]:
        assert chosen.check(item, options) is None
        assert chosen.score(solution, item, options) == RIGHT, item.id
        assert chosen.score("    pass", item, options) == WRONG, item.id
