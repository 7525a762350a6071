"""`swapgate try` gives a first answer from results that a team has."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.interfaces.cli.evals.export_decision import recognise_file
from harness.interfaces.cli.evals.try_command import try_
from harness.interfaces.cli.frame.session import adopt_options

pytestmark = pytest.mark.req("G1", "F2")
FILES = Path(__file__).parents[1] / "support/evals/exports"


def tried(*words: str | Path) -> Result:
    return CliRunner().invoke(adopt_options(try_), [*map(str, words)])


@pytest.mark.parametrize("file", sorted(FILES.glob("*_*.*")), ids=lambda file: file.name)
def test_a_file_is_recognised_by_its_content(tmp_path: Path, file: Path) -> None:
    named_otherwise = tmp_path / "results"
    named_otherwise.write_bytes(file.read_bytes())

    tool = recognise_file(str(named_otherwise)).replace("-", "_")

    assert file.name.startswith(tool)


def repeated(wrong: int) -> str:
    """20 questions, each asked 10 times; the answers to the first `wrong` are wrong."""
    rows = [f"question {n};{int(n >= wrong)}" for _ in range(10) for n in range(20)]
    return "\n".join(["question;score", *rows])


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        ((10, 9), 4, "points worse and 24 better: not enough to decide"),
        ((19, 1), 0, "points better: that shows that it is better"),
        ((0, 20), 3, "points worse: it is worse"),
    ],
)
def test_the_answer_is_in_plain_words_with_what_could_be_seen(
    tmp_path: Path, wrong: tuple[int, int], code: int, words: str
) -> None:
    files = tmp_path / "incumbent.csv", tmp_path / "candidate.csv"
    for file, first in zip(files, wrong, strict=True):
        file.write_text(repeated(first), encoding="utf-16")

    done = tried(*files)

    assert done.exit_code == code, done.output
    assert "20 questions × 10 repeats are 20 items, scored by `score`." in done.stdout
    assert words in done.stdout
    assert "with these 20, only " in done.stdout
    assert "next: " in done.stdout.splitlines()[-1]


def test_one_json_object_has_all_figures(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("item,incumbent,candidate\na,1,0\nb,0,1\n")

    answer = json.loads(tried(file, "--json").stdout)

    assert (answer["verdict"], answer["items"], answer["epochs"]) == ("inconclusive", 2, 1)
    assert answer["items_for_5_points"] > 100
    assert answer["smallest_difference"] > 0.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompts: [a]\nproviders: [b]\n", "looks like a promptfoo configuration"),
        ('{"messages": []}', "looks like a data set of conversations, and holds no scores"),
        ("a,b\n1,2\n", "is of no known eval tool, and holds no scores that can be read; its"),
        ("", "is neither JSON nor a table"),
        ("item,score\na,A+\n", "score of run '' cannot be read as scores: 1 sample has the"),
        ("item,incumbent,candidate\n", "no items"),
    ],
)
def test_a_file_without_results_is_told_what_it_looks_like(
    tmp_path: Path, content: str, message: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(content)
    second.write_text(content)

    done = tried(first) if "candidate" in content else tried(first, second)

    assert done.exit_code == 2
    assert message in done.stderr


def test_files_of_two_tools_are_no_pair() -> None:
    done = tried(FILES / "deepeval_incumbent.json", FILES / "langfuse_candidate.json")

    assert done.exit_code == 2
    assert "is of DeepEval" in done.stderr
