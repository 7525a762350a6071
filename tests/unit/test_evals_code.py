"""A model's code: right, wrong, in a wrong form, and kept from doing harm."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from evals.sandbox.launcher import why_not_contained
from evals.scorers import ScoreResult, find_scorer
from evals.scorers.code import CONTAINED
from evals.suites.items import Item, load_items
from evals.suites.suite import load_suite
from harness.domain.errors import InputError
from harness.domain.settings import SuiteSettings

RIGHT, WRONG, NONE = ScoreResult(1, 1), ScoreResult(0, 0), ScoreResult(None, None)
TWICE = {
    "prompt": "import math\n\ndef twice(n):\n    '''Double.'''\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    "entry_point": "twice",
}
SHARED = Path(os.environ.get("SWAPGATE_SHARED", Path(__file__).parents[3] / "shared"))
HUMANEVAL = SHARED / "evaldata" / "humaneval.jsonl"


def judged(answer: str, target: object = TWICE, **given: object) -> ScoreResult:
    chosen = find_scorer("code")
    item, options = Item("i", "asked", target), chosen.options(given)
    assert chosen.check(item, options) is None
    return chosen.score(answer, item, options)


@pytest.mark.req("A8")
@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        ("    return 2 * n", RIGHT),
        ("def twice(n):\n    return math.floor(2 * n)", RIGHT),
        ("```python\ndef twice(n):\n    return 2 * n\n```", ScoreResult(0, 1, "code_fence")),
        ("Sure:\n```\n    return n + n\n```\nDone.", ScoreResult(0, 1, "extra_prose")),
        ("    return n", WRONG),
        ("```python\ndef twice(n):\n    return n\n```", WRONG),
        ("I cannot do that.", WRONG),
        (" \n", NONE),
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
        "    raise SystemExit(0)",
        "    import os\n    os._exit(0)",
        "    print('started')\n    return 0",
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
        "import socket; socket.create_connection(('127.0.0.1', PORT), 2)",
        "import socket; socket.create_connection(('10.255.255.1', 80), 1)",
        "import subprocess; subprocess.run(['/bin/true'], check=True)",
        "import subprocess; subprocess.run(['sh', '-c', 'true'], check=True)",
        "import os; assert os.system('/bin/true') == 0",
        "import os; os.kill(PARENT, 0)",
        "import os; os.kill(os.getppid() or PARENT, 9)",
        "import ctypes; assert not ctypes.CDLL(None).mount(b'none', b'/empty', b'tmpfs', 0, 0)",
        "import os; os.setuid(0)",
        "import os; os.chroot('/')",
        (
            "import os, multiprocessing.util as m; "
            "assert os.waitpid(m.spawnv_passfds(b'/bin/true', [b'true'], []), 0)[1] == 0"
        ),
        "open('found.txt', 'w')",
        "open('/found.txt', 'w')",
        "import os; os.mkdir('/lib/ours')",
        "import pathlib; pathlib.Path('/dev/null').unlink()",
        "open(SECRET)",
        "open('/etc/passwd')",
        "import os; open(f'/proc/{os.getppid()}/environ', 'rb')",
        "import os; os.listdir(os.path.dirname(SECRET))",
        "import os; os.listdir('/home')",
        "import os; os.chdir('/etc')",
        "import os; os.open('../../etc/passwd', os.O_RDONLY)",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    ],
)
def test_code_that_reaches_out_reaches_nothing(reach: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.key"
    secret.write_text("s3cret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = {"SECRET": str(secret), "PORT": server.getsockname()[1], "PARENT": os.getpid()}
        given = "".join(f"    {name} = {value!r}\n" for name, value in names.items())
        caught = f"{given}    try:\n        {reach}\n    except Exception:\n        return 4\n"

        assert judged(caught) == RIGHT


FORGED = [
    # The answer's own process holds nothing that the verdict is made of.
    (
        "    import os\n    for fd in range(64):\n        try: os.write(fd, b'x' * 33)\n"
        "        except OSError: pass\n    return 5"
    ),
    (
        "    import sys, gc\n    frame = sys._getframe()\n    while frame:\n"
        "        for value in [*frame.f_globals.values(), *frame.f_locals.values()]:\n"
        "            if isinstance(value, dict):\n"
        "                value.update(passed=True, word='', test='', call='')\n"
        "        frame = frame.f_back\n    return 5"
    ),
    "    import builtins\n    builtins.AssertionError = ValueError\n    return 5",
    (
        "    class Equal(int):\n        def __eq__(self, other): return True\n"
        "        __hash__ = None\n    return Equal(5)"
    ),
    (
        "    class Equal:\n        def __eq__(self, other): return True\n"
        "        __req__ = __lt__ = __gt__ = __eq__\n        def __bool__(self): return True\n"
        "    return Equal()"
    ),
    "    import sys\n    sys.modules['__main__'].check = lambda c: None\n    return 5",
    (
        "    import gc, json\n    for each in gc.get_objects():\n"
        "        if type(each).__name__ == 'Peer':\n"
        '            each._writer.write(b\'{"value": ["int", "0x5"]}\\n\' * 3)\n    return 5'
    ),
    (
        "    import gc\n    for each in gc.get_objects():\n"
        "        if type(each).__name__ == 'Peer':\n"
        "            each.ask('__getattr__', 0, '__globals__')\n    return 4"
    ),
]


@pytest.mark.parametrize("answer", FORGED)
def test_no_answer_writes_its_own_verdict(answer: str) -> None:
    assert judged(answer) == WRONG


def test_an_answer_is_below_no_limit_by_its_own_word() -> None:
    near = "def check(candidate):\n    assert abs(candidate(2) - 4) < 1e-6\n"
    always = (
        "    class Low:\n        def __sub__(self, other): return self\n"
        "        def __abs__(self): return self\n"
        "        def __lt__(self, other): return True\n    return Low()"
    )

    assert judged("    return 4.0", {**TWICE, "test": near}) == RIGHT
    assert judged(always, {**TWICE, "test": near}) == WRONG


@pytest.mark.parametrize(
    ("answer", "test"),
    [
        (
            "class Z:\n    def __sub__(self, other): return 0.0\ndef f(x): return Z()",
            "assert abs(f(7.1) - 9) < 1e-6",
        ),
        (
            ("class Z:\n    def __sub__(self, other): return self\n"
            "    def __abs__(self): return 0.0\ndef f(x): return Z()"),
            "assert abs(f(7.1) - 9) < 1e-6",
        ),
        (
            "class Z:\n    def __mod__(self, other): return 0\ndef f(x): return Z()",
            "assert f(1) % 7 == 0",
        ),
    ],
)  # fmt: skip
def test_an_answers_object_says_nothing_of_its_distance(answer: str, test: str) -> None:
    assert judged(answer, test) == WRONG


def test_objects_of_an_answer_still_count_with_one_another() -> None:
    vector = (
        "class V:\n    def __init__(self, x): self.x = x\n"
        "    def __add__(self, other): return V(self.x + other.x)\n"
        "    def __mul__(self, n): return V(self.x * n)\n"
        "    def __neg__(self): return V(-self.x)"
    )

    assert judged(vector, "assert (-(V(1) + V(2)) * 2).x == -6") == RIGHT


def test_what_an_answer_starts_ends_with_it_in_whatever_session() -> None:
    started = psutil.Process().create_time()
    escape = (
        "    import ctypes, os, signal, time\n    os.setsid()\n"
        "    ctypes.CDLL(None).prctl(1, 0)\n"
        "    for each in (signal.SIGTERM, signal.SIGHUP): signal.signal(each, signal.SIG_IGN)\n"
        "    time.sleep(60)"
    )

    assert judged(escape, timeout_s=1.0) == WRONG
    orphans = [
        process
        for process in psutil.process_iter(["cmdline", "ppid", "create_time"])
        if process.info["ppid"] == 1
        and any(arg.endswith("sandbox/child.py") for arg in process.info["cmdline"] or ())
        and process.info["create_time"] >= started
    ]
    assert orphans == []


def test_memory_that_no_process_is_charged_for_is_not_to_be_had() -> None:
    shared = (
        "    import ctypes\n    libc = ctypes.CDLL(None, use_errno=True)\n"
        "    kept = libc.shmget(0, ctypes.c_size_t(2**24), 0o1600)\n"
        "    return 4 if kept == -1 else 0"
    )

    assert judged(shared) == RIGHT


def test_a_fork_bomb_ends_with_its_process() -> None:
    bomb = (
        "    import os\n    while True:\n        try: os.fork()\n        except OSError: pass"
    )

    assert judged(bomb, timeout_s=1.0) == WRONG
    assert judged("    return 2 * n") == RIGHT


@pytest.mark.parametrize(
    ("answer", "test"),
    [
        ("def f(xs):\n    xs.sort()", "xs = [3, 1]\nf(xs)\nassert xs == [1, 3]"),
        ("def f(g):\n    return g(2) + g(3)", "assert f(lambda n: n * n) == 13"),
        ("def f():\n    yield from (1, 2)", "assert list(f()) == [1, 2] and sum(f()) == 3"),
        ("async def f():\n    return 7", "import asyncio\nassert f() == 7"),
        (
            ("class Stack:\n    def __init__(self): self.items = []\n"
            "    def push(self, x): self.items.append(x)\n"
            "    def __len__(self): return len(self.items)"),
            "s = Stack()\ns.push(1)\nassert len(s) == 1 and s.items == [1]",
        ),
        (
            "def f(x):\n    raise ValueError(f'bad {x}')",
            ("try:\n    f(1)\nexcept ValueError as e:\n    assert str(e) == 'bad 1'\nelse:\n"
            "    assert False"),
        ),
        (
            ("from decimal import Decimal\nimport datetime, math\n"
            "def f(): return {'a': (1.5, None, True), (1, 2): {3}, 'd': Decimal('1.10'),\n"
            "    't': datetime.timedelta(days=2), 'b': b'x', 'r': range(3), 'z': 1j}"),
            ("import datetime\nfrom decimal import Decimal\n"
            "assert f() == {'a': (1.5, None, True), (1, 2): {3}, 'd': Decimal('1.10'),\n"
            "    't': datetime.timedelta(days=2), 'b': b'x', 'r': range(3), 'z': 1j}\n"
            "assert math.sqrt(4) == 2"),
        ),
        ("def f(n):\n    return f(n - 1) if n else 0", ("try:\n    f(10**6)\n"
         "except RecursionError: pass\nelse: assert False")),
    ],
)  # fmt: skip
def test_tests_use_an_answer_as_if_it_were_beside_them(answer: str, test: str) -> None:
    assert judged(answer, test) == RIGHT


def test_code_runs_uncontained_only_where_the_operator_says_so() -> None:
    chosen = find_scorer("code")
    options = {**chosen.options({}), CONTAINED: False}

    assert chosen.score("    return 2 * n", Item("i", "asked", TWICE), options) == RIGHT
    with pytest.raises(InputError, match="unknown option 'contained'"):
        chosen.options({CONTAINED: False})


@pytest.mark.req("F6")
def test_the_pin_of_a_suite_says_that_code_ran_uncontained(tmp_path: Path) -> None:
    data = tmp_path / "code.jsonl"
    data.write_text(json.dumps({"id": "a", "input": "Double.", "target": TWICE}) + "\n")
    contained = SuiteSettings("coding", path=data, scorer="code")
    pins = [
        load_suite(config).pin
        for config in (contained, replace(contained, code_uncontained=True))
    ]

    assert pins[1].scorer_alone.endswith("+uncontained")
    assert not pins[0].scorer_alone.endswith("+uncontained")
    assert pins[0].digest != pins[1].digest


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


def test_this_machine_contains_a_models_code() -> None:
    assert why_not_contained() == ""


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
    chosen = find_scorer("code")

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
    chosen = find_scorer("code")
    options = chosen.options({})

    for item, solution in list(zip(items, solutions, strict=True))[::16]:
        assert chosen.check(item, options) is None
        assert chosen.score(solution, item, options) == RIGHT, item.id
        assert chosen.score("    pass", item, options) == WRONG, item.id
