"""Which tests `make test-changed` selects, in a small checkout."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support.concerned_tests import ConcernedTests, list_changes, main

FILES: Final[Mapping[str, str]] = {
    "harness/__init__.py": "",
    "harness/price.py": "",
    "harness/cart.py": "def total():\n    from harness import price\n",
    "harness/commands.py": 'COMMANDS = ["harness.payment:pay", ".refund:group"]\n',
    "harness/payment.py": "",
    "harness/refund.py": "",
    "harness/schema.py": 'FOLDER = "migrations"\n',
    "migrations/first.sql": "",
    "docs/guide/prices.md": "",
    "datasets/unread.csv": "",
    "tests/conftest.py": (
        "import pytest\n"
        "from harness import cart\n"
        "@pytest.fixture\n"
        "def basket(): return cart.total()\n"
        "@pytest.fixture\n"
        "def full_basket(basket): return basket\n"
    ),
    "tests/support/programs.py": "import subprocess\n",
    "tests/support/store/postgres.py": "import subprocess\n",
    "dashboard/views/keys.py": "",
    "tests/test_page.py": "from streamlit.testing.v1 import AppTest\n",
    "tests/test_price.py": '"""Not of harness.payment."""\nfrom harness.price import now\n',
    "tests/test_cart.py": "from harness import cart\n",
    "tests/test_basket.py": "def test_it(full_basket): ...\n",
    "tests/test_commands.py": "from harness import commands\n",
    "tests/test_schema.py": "from harness import schema\n",
    "tests/test_docs.py": 'PAGE = ROOT / "docs" / "guide/prices.md"\n',
    "tests/test_program.py": "from tests.support import programs\n",
    "tests/test_postgres.py": "from tests.support.store import postgres\n",
    "tests/test_sources.py": 'ROOMS = ("harness", "router")\n',
}
Select = Callable[..., tuple[set[str], str]]


@pytest.fixture
def select(tmp_path: Path) -> Select:
    for file, text in FILES.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def chosen(*changed: str) -> tuple[set[str], str]:
        tests, reason = ConcernedTests(tmp_path, {*FILES, *changed}).select(changed)
        return {Path(test).stem.removeprefix("test_") for test in tests}, reason

    return chosen


# A test that starts a process, and one that names the folder, concern the whole of it.
WHOLE: Final = {"program", "sources"}


@pytest.mark.parametrize(
    ("changed", "concerned"),
    [
        ("harness/price.py", {"price", "cart", "basket"} | WHOLE),  # an import in a function
        ("harness/cart.py", {"cart", "basket"} | WHOLE),  # a fixture that another requests
        ("harness/payment.py", {"commands"} | WHOLE),  # a module that a string names
        ("harness/refund.py", {"commands"} | WHOLE),  # the same, relative to its package
        ("harness/__init__.py", {"price", "cart", "basket", "commands", "schema"} | WHOLE),
        ("migrations/first.sql", {"schema", "program"}),
        ("dashboard/views/keys.py", {"page", "program"}),
        ("docs/guide/prices.md", {"docs"}),
        ("tests/support/programs.py", {"program"}),
        ("tests/support/store/postgres.py", {"postgres"}),
        ("tests/test_price.py", {"price"}),
    ],
)
def test_a_change_selects_the_tests_that_reach_it(
    select: Select, changed: str, concerned: set[str]
) -> None:
    assert select(changed) == (concerned, "")


def test_several_changes_select_the_tests_of_each(select: Select) -> None:
    both, _ = select("tests/test_price.py", "docs/guide/prices.md")

    assert both == {"price", "docs"}


def test_the_readers_of_a_deleted_module_are_selected(select: Select, tmp_path: Path) -> None:
    (tmp_path / "harness/payment.py").unlink()

    assert select("harness/payment.py") == ({"commands"} | WHOLE, "")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ("tests/conftest.py", "tests/conftest.py decides how tests run"),
        ("pyproject.toml", "pyproject.toml decides how tests run"),
        ("requirements/dev.lock", "requirements/dev.lock decides how tests run"),
        ("LICENSE", "no test reaches LICENSE"),
    ],
)
def test_a_change_that_nothing_narrows_selects_every_test_and_says_why(
    select: Select, changed: str, reason: str
) -> None:
    every, said = select("harness/price.py", changed)

    assert said == reason
    assert len(every) == sum("/test_" in file for file in FILES)


def commit_all(folder: Path) -> None:
    author = ["-c", "user.name=ann", "-c", "user.email=ann@localhost"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "Begin"]):
        subprocess.run(["git", *words], cwd=folder, check=True)  # noqa: S603, S607 - Git from PATH


def test_a_new_file_differs_from_the_last_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.concerned_tests.ROOT", tmp_path)
    (tmp_path / "old.py").write_text("")
    (tmp_path / "gone.py").write_text("")
    commit_all(tmp_path)
    (tmp_path / "old.py").write_text("changed = 1")
    (tmp_path / "gone.py").unlink()
    (tmp_path / "new.py").write_text("")

    commit, changed = list_changes("")

    assert commit == "HEAD"
    assert sorted(changed) == ["gone.py", "new.py", "old.py"]


def test_a_deleted_test_alone_runs_no_other_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.concerned_tests.ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_gone.py").write_text("")
    commit_all(tmp_path)
    (tmp_path / "tests/test_gone.py").unlink()
    started: list[object] = []
    monkeypatch.setattr(subprocess, "call", started.append)

    assert main("HEAD") == 0
    assert started == []
