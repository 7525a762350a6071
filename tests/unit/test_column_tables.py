"""`try` on one table with a column per model, as CSV and as `.xlsx`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from harness.evals.file_gate.column_tables import parse_columns
from harness.evals.table_formats import parse_score
from harness.interfaces.cli.program import program
from tests.support.evals.workbooks import sheet_of, write_workbook

pytestmark = pytest.mark.req("G1", "F2", "H1")

HEADER: Final = ("question", "gpt-4o", "claude")
ROWS: Final = [(f"What is {n}+{n}?", n % 2, int(n % 5 > 0)) for n in range(30)]
NAMES: Final = ("--incumbent", "gpt-4o", "--candidate", "claude")


def tried(file: Path, *words: str) -> Result:
    return CliRunner().invoke(program, ["try", str(file), *words])


def written(folder: Path, rows: Sequence[Sequence[object]], after: str = "") -> Path:
    return write_workbook(folder / "results.xlsx", sheet_of(rows, after))


def test_a_table_gives_one_answer_as_csv_and_as_a_spreadsheet(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text("\n".join(",".join(map(str, row)) for row in (HEADER, *ROWS)))
    book = written(tmp_path, [["Eval of the week"], [], HEADER, *ROWS])

    answers = [tried(file, *NAMES, "--json") for file in (table, book)]

    assert [answer.exit_code for answer in answers] == [0, 0]
    assert json.loads(answers[0].stdout) == json.loads(answers[1].stdout)
    assert json.loads(answers[0].stdout)["wins"] == 12


def test_a_table_never_chooses_the_incumbent_and_shows_the_command_instead(
    tmp_path: Path,
) -> None:
    done = tried(written(tmp_path, [HEADER, *ROWS]))

    assert done.exit_code == 2
    assert "results.xlsx --incumbent gpt-4o --candidate claude`" in done.stderr


def test_columns_named_incumbent_and_candidate_need_no_options(tmp_path: Path) -> None:
    done = tried(written(tmp_path, [("question", "candidate", "incumbent"), *ROWS]), "--json")

    answer = json.loads(done.stdout)
    assert (answer["incumbent"], answer["wins"]) == ("incumbent", 3)
    assert answer["losses"] == 12


@pytest.mark.parametrize(
    ("header", "models"),
    [
        ("question,gpt-4o score,claude score", {"gpt-4o": {"score"}, "claude": {"score"}}),
        ("id,accuracy_gpt,accuracy_claude", {"gpt": {"accuracy"}, "claude": {"accuracy"}}),
        ("id,GPT-4o (pass),Claude (pass)", {"GPT-4o": {"pass"}, "Claude": {"pass"}}),
        ("id,llama-8b,llama-70b", {"llama-8b": {"score"}, "llama-70b": {"score"}}),
        ("id,gpt-4o,gpt-4o-mini", {"gpt-4o": {"score"}, "gpt-4o-mini": {"score"}}),
        ("Frage,Modell A,Modell B", {"Modell A": {"score"}, "Modell B": {"score"}}),
    ],
)
def test_a_columns_name_has_the_model_and_perhaps_the_score(
    header: str, models: dict[str, set[str]]
) -> None:
    runs = parse_columns(f"{header}\nq1,1,0\nq2,0,1\n")

    assert {run.model: {*run.metrics} for run in runs} == models


@pytest.mark.parametrize(
    ("cell", "score"),
    [
        ("85%", 0.85),
        ("85,5 %", 0.855),
        ("0,125", 0.125),
        ("1,0", 1.0),
        ("1,000", None),  # perhaps a thousand
        ("Pass", 1.0),
        ("✅ Correct", 1.0),
        ("✔️", 1.0),
        ("❌", 0.0),
        ("x", None),  # a cross or a tick
        ("pass fail", None),
        ("#DIV/0!", None),
        ("0_1", None),
        ("2026-01-02", None),  # a spreadsheet's reading of 1/2
    ],
)
def test_a_cell_is_a_score_only_if_it_can_mean_nothing_else(
    cell: str, score: float | None
) -> None:
    assert parse_score(cell) == score


@given(st.integers(0, 10_000))
def test_a_decimal_comma_reads_as_a_point(thousandths: int) -> None:
    text = f"{thousandths / 10_000:.4f}"

    assert parse_score(text.replace(".", ",")) == parse_score(text) == float(text)


FAULTS: Final[dict[str, tuple[Sequence[Sequence[object]], str, str]]] = {
    "merged cells in the table": (
        [HEADER, *ROWS],
        '<mergeCells><mergeCell ref="A2:A3"/></mergeCells>',
        "cells A2:A3 are merged",
    ),
    "a name that is missing": (
        [("question", "gpt-4o", None), *ROWS],
        "",
        "line 1: column 3 has scores and no name",
    ),
    "two columns of one name": (
        [("question", "gpt-4o", "gpt-4o"), *ROWS],
        "",
        "two columns have the name 'gpt-4o'",
    ),
    "some percent signs": (
        [HEADER, ("a", "85%", "1%"), ("b", "1", "0")],
        "",
        "the scores of 'score' of 'gpt-4o' have percent signs, and also numbers without one",
    ),
    "marks from 1 to 5": (
        [HEADER, ("a", 5, 4), ("b", 1, 2)],
        "",
        "is 5: scores are from 0 to 1. For another range, give a table with columns min_score",
    ),
    "a row of means": (
        [HEADER, *ROWS, ("Average", 0.5, 0.8)],
        "",
        "line 32: the row 'Average' looks like a mean or a sum",
    ),
    "an error of a formula": (
        [HEADER, ("a", '<c t="e"><v>#DIV/0!</v></c>', 1), ("b", 1, 0), ("c", 1, 0)],
        "",
        "1 sample has the value '#DIV/0!', first in item 'a'. Correct the values",
    ),
    "questions that repeat under an unknown name": (
        [("Frage", "gpt-4o", "claude"), ("a", 1, 0), ("a", 0, 1)],
        "",
        "give the column of questions the name `question`",
    ),
    "answers without scores": (
        [("question", "expected", "gpt-4o", "claude"), ("a", "4", "It is 4.", "four")],
        "",
        "a column of scores for each model, such as `question,gpt-6-sol,claude`",
    ),
    "no rows": ([[]], "", "its first sheet, 'Results', is empty"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_table_that_could_be_misread_is_refused_with_the_way_out(
    tmp_path: Path, name: str
) -> None:
    rows, after, message = FAULTS[name]

    done = tried(written(tmp_path, rows, after), *NAMES)

    assert done.exit_code == 2, done.output
    assert message in done.stderr


def test_several_answers_to_one_question_are_repeats_of_one_item(tmp_path: Path) -> None:
    rows = [(f"q{n % 10}", n % 2, 1) for n in range(30)]

    done = tried(written(tmp_path, [HEADER, *rows]), *NAMES, "--json")

    answer = json.loads(done.stdout)
    assert (answer["items"], answer["epochs"]) == (10, 3)


def test_a_workbook_with_several_sheets_says_which_one_is_read(tmp_path: Path) -> None:
    sheets = [("Notes", "hidden"), ("Results", "visible"), ("More", "visible")]
    file = write_workbook(tmp_path / "r.xlsx", sheet_of([HEADER, *ROWS]), sheets=sheets)

    done = tried(file, *NAMES)

    assert "the first sheet, 'Results', of 3 is read" in done.stdout


def test_a_spreadsheet_that_could_harm_the_reader_is_refused(tmp_path: Path) -> None:
    sheet = sheet_of([HEADER, *ROWS])
    entity = f'<!DOCTYPE worksheet [<!ENTITY a "1">]>{sheet}'
    stray = sheet_of([HEADER, ('<c r="XFD2"><v>1</v></c>',)] * 2000)
    files = [
        write_workbook(tmp_path / "dtd.xlsx", entity),
        write_workbook(tmp_path / "large.xlsx", sheet + " " * (50 * 2**20)),
        write_workbook(tmp_path / "wide.xlsx", stray),
        write_workbook(tmp_path / "far.xlsx", sheet.replace("<row>", '<row r="99999999">', 1)),
    ]
    messages = [
        "has a document type definition",
        "is larger than 50 MiB unpacked",
        "has too many cells",
        "has too many cells",
    ]

    for file, message in zip(files, messages, strict=True):
        done = tried(file)
        assert done.exit_code == 2, done.output
        assert message in done.stderr


def test_other_spreadsheets_are_named_with_the_format_to_save_them_in(tmp_path: Path) -> None:
    old = tmp_path / "old.xls"
    old.write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600))
    cut = written(tmp_path, [HEADER, *ROWS])
    cut.write_bytes(cut.read_bytes()[:500])

    for file in (old, cut):
        done = tried(file)
        assert done.exit_code == 2
        assert "save it as .xlsx without a password, or as CSV" in done.stderr
