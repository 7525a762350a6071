import gc
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from inspect import getsource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals import scorers
from evals.runner.questions import plan_questions
from evals.scorers import find_scorer, scorer_identity
from evals.scorers.code import imports
from evals.scorers.unwrap import parse_literal, parse_source
from evals.suites.items import Item, load_items
from harness.frame.errors import InputError
from harness.gate.suite_plan import ItemGroups, shuffle_items
from harness.routing.similar_texts import find_near_duplicates, jaccard_similarity, shingles


def jsonl(folder: Path, *records: object) -> Path:
    file = folder / "data.jsonl"
    file.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return file


def csv_file(folder: Path, text: str) -> Path:
    file = folder / "data.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_an_item_without_an_id_is_named_by_its_place(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        {"input": "a", "target": "1"},
        {"input": "b", "expected": 2},
    )

    assert load_items(file, name="sums") == (
        Item("sums-0001", "a", "1"),
        Item("sums-0002", "b", 2),
    )


def test_csv_and_jsonl_give_the_same_items(tmp_path: Path) -> None:
    record = {
        "id": "x1",
        "input": "one,\nor two?",
        "target": {"a": 1},
        "choices": ["one", "two"],
        "metadata": {"difficulty": 0.5},
    }
    table = (
        "id,input,target,choices,metadata\r\n"
        'x1,"one,\nor two?","{""a"": 1}","[""one"", ""two""]","{""difficulty"": 0.5}"\r\n'
    )

    assert load_items(csv_file(tmp_path, table), name="n") == load_items(
        jsonl(tmp_path, record), name="n"
    )


def test_an_input_that_looks_like_json_stays_text(tmp_path: Path) -> None:
    [item] = load_items(csv_file(tmp_path, 'input,target\n"[1, 2]",3\n'), name="n")

    assert (item.input, item.target) == ("[1, 2]", "3")


def test_two_fields_can_make_the_target(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        {
            "prompt": "p",
            "one": 1,
            "two": [2],
        },
    )

    [item] = load_items(
        file,
        name="n",
        input_field="prompt",
        target_field="one+two",
    )

    assert item.target == {"one": 1, "two": [2]}


@pytest.mark.parametrize(
    ("records", "place", "told"),
    [
        ([{"input": "a"}], 1, "'target' or 'expected': missing"),
        (
            [{"input": "a", "target": "1"}, {"target": "2"}],
            2,
            "'input': missing",
        ),
        (
            [{"input": " ", "target": "1"}],
            1,
            "must be a text that is not empty",
        ),
        (
            [{"input": 3, "target": "1"}],
            1,
            "must be a text that is not empty",
        ),
        (
            [
                {
                    "input": "a",
                    "target": "1",
                    "id": [],
                }
            ],
            1,
            "'id': must be a text",
        ),
        (
            [
                {
                    "input": "a",
                    "target": "1",
                    "choices": ["one"],
                }
            ],
            1,
            "two texts or more",
        ),
        (
            [
                {
                    "input": "a",
                    "target": "1",
                    "metadata": "m",
                }
            ],
            1,
            "'metadata': must be",
        ),
        (
            [
                {
                    "id": 7,
                    "input": "a",
                    "target": "1",
                }
            ]
            * 2,
            2,
            "already the id of line 1",
        ),
        (["text"], 1, "one JSON object"),
    ],
)
def test_a_fault_is_told_with_file_line_and_field(
    tmp_path: Path,
    records: list[object],
    place: int,
    told: str,
) -> None:
    file = jsonl(tmp_path, *records)

    with pytest.raises(InputError) as raised:
        load_items(file, name="n")

    assert str(raised.value).startswith(f"{file}:{place}: ")
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("name", "raw", "told"),
    [
        ("a.jsonl", b"", "no items"),
        ("a.jsonl", b"\n\n", "no items"),
        (
            "a.jsonl",
            b'{"input": "a", "target": "1"}\n{"input": ',
            ":2: not JSON",
        ),
        ("a.jsonl", b'{"input": "a", "target": NaN}', ":1: not JSON: NaN"),
        (
            "a.jsonl",
            b'{"input": "a", "target": "1"}\n{"input": "\xff"}',
            ":2: not UTF-8",
        ),
        # With the line where the row begins.
        (
            "a.csv",
            b"input,target\na,1,2\n",
            r"\.csv:2: the row has more cells",
        ),
        ("a.csv", b'input,target\na,1\n"b\n', r"\.csv:3: not CSV"),
        (
            "a.csv",
            b"input,target\na,\n",
            r"\.csv:2: field 'target' or 'expected': missing",
        ),
        ("a.csv", b'input,target\n"a\nb",1\nc,\n', r"\.csv:4: field"),
        ("gone.jsonl", None, r"gone\.jsonl: cannot be read: No such file"),
        ("a.xlsx", b"x", r"unknown kind of file '\.xlsx'; use \.jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_fault(
    tmp_path: Path,
    name: str,
    raw: bytes | None,
    told: str,
) -> None:
    if raw is not None:
        (tmp_path / name).write_bytes(raw)

    with pytest.raises(InputError, match=told):
        load_items(tmp_path / name, name="n")


ids = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=30)


@given(ids=ids, seed=st.integers(0, 2**40))
def test_the_order_is_a_permutation_that_the_seed_fixes(ids: set[str], seed: int) -> None:
    assert sorted(shuffle_items(ids, seed)) == sorted(ids)
    assert shuffle_items(ids, seed) == shuffle_items(sorted(ids, reverse=True), seed)
    many = [str(n) for n in range(50)]
    assert shuffle_items(many, seed) != shuffle_items(many, seed + 1)


@given(ids=ids, seed=st.integers(0, 99), wanted=st.integers(1, 40))
def test_wanting_more_items_goes_on_where_fewer_ended(
    ids: set[str],
    seed: int,
    wanted: int,
) -> None:
    groups = ItemGroups(tuple(ids))
    fewer = plan_questions(
        groups,
        order_seed=seed,
        wanted=wanted,
        epochs=2,
    )
    more = plan_questions(
        groups,
        order_seed=seed,
        wanted=wanted + 5,
        epochs=2,
    )

    assert more[: len(fewer)] == fewer
    assert len(fewer) == 2 * min(wanted, len(ids))
    positions = [question.position for question in fewer]
    assert positions == sorted(positions)


SOURCE = getsource(scorers)
NUMBERS = list(range(2000))


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Threads change places whenever they can, also while the collector runs."""

    def collected(phase: str, info: dict[str, int]) -> None:
        for _ in (phase, info) * 20:
            pass

    interval = sys.getswitchinterval()
    most, *others = gc.get_threshold()
    gc.callbacks.append(collected)
    sys.setswitchinterval(1e-6)
    gc.set_threshold(50, *others)
    yield
    gc.set_threshold(most, *others)
    sys.setswitchinterval(interval)
    gc.callbacks.remove(collected)


def in_threads(do: Callable[[], object]) -> list[object]:
    with ThreadPoolExecutor(4) as pool:
        return [future.result() for future in [pool.submit(do) for _ in range(60)]]


def test_trees_and_literals_are_built_one_at_a_time() -> None:
    assert all(in_threads(lambda: parse_source(SOURCE).body))
    assert in_threads(lambda: parse_literal(str(NUMBERS))) == [NUMBERS] * 60


def test_code_and_scorers_are_looked_at_in_threads() -> None:
    assert in_threads(lambda: imports(SOURCE)) == [f"{SOURCE}\n"] * 60
    known = scorer_identity(find_scorer("code"), {})
    assert in_threads(lambda: scorer_identity(find_scorer("code"), {})) == [known] * 60


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12).map(" ".join)


@pytest.mark.req("F9")
@given(
    texts=st.lists(WORDS, max_size=14),
    threshold=st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0]),
)
def test_the_quick_way_finds_what_comparing_all_with_all_does(
    texts: list[str], threshold: float
) -> None:
    named = {str(number): text for number, text in enumerate(texts)}
    kept: list[str] = []
    expected: set[str] = set()
    for id_, text in named.items():
        mine = shingles(text)
        if any(jaccard_similarity(mine, shingles(named[name])) >= threshold for name in kept):
            expected.add(id_)
        else:
            kept.append(id_)

    near_duplicates = find_near_duplicates(named, threshold=threshold)

    assert set(near_duplicates) == expected
    assert all(
        kept_id in kept
        and jaccard_similarity(shingles(named[id_]), shingles(named[kept_id])) >= threshold
        for id_, kept_id in near_duplicates.items()
    )


@pytest.mark.req("F9")
def test_one_word_of_many_makes_a_near_duplicate_and_another_question_does_not() -> None:
    mail = " ".join(f"word{n}" for n in range(60))
    texts = {
        "first": mail,
        "again": f"{mail} thanks",
        "other": "where is my parcel",
    }

    assert find_near_duplicates(texts, threshold=0.9) == {"again": "first"}
