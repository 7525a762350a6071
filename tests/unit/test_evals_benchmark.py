"""The benchmark of eval workers: whose time a look at the stack is, and the table."""

import json
from pathlib import Path

import pytest

from benchmarks.evals import sampling
from benchmarks.evals.run import BARE, OURS, Figures, lines, write_items

SITE = "/x/site-packages/"


@pytest.mark.parametrize(
    ("stack", "part"),
    [
        (["/usr/lib/json/encoder.py", f"{SITE}inspect_ai/_util/json.py"], "Inspect: log"),
        (["/usr/lib/sqlite3.py", f"{SITE}inspect_ai/log/_recorders/buffer/db.py"], "buffer"),
        (["/usr/lib/copy.py", f"{SITE}inspect_ai/solver/_x.py"], "Inspect: deep copies"),
        (["<frozen importlib._bootstrap>", f"{SITE}inspect_ai/__init__.py"], "importing"),
        (["/swapgate/evals/runner/provider_client.py", "/usr/lib/asyncio/tasks.py"], "calling"),
        (["/usr/lib/asyncio/tasks.py"], "event loop"),
        (["/usr/lib/threading.py"], sampling.OTHER),
    ],
)
def test_a_look_belongs_to_the_innermost_frame_that_has_a_part(
    stack: list[str], part: str
) -> None:
    assert part in sampling.part_of(stack)


def test_shares_leave_out_what_is_paid_once(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps({"parts": {sampling.IMPORTS: 600, "a": 1, "b": 3}}))

    assert list(sampling.shares(file).items()) == [("b", 0.75), ("a", 0.25)]
    assert sampling.import_s(file) == pytest.approx(3.0)


def test_the_ratio_is_that_of_the_rounds_not_of_their_middles() -> None:
    rounds = [
        {BARE: Figures(bare, 300, 10, 10), OURS: Figures(ours, rss, 10, 10)}
        for bare, ours, rss in ((10.0, 11.0, 400), (20.0, 22.0, 410), (40.0, 80.0, 405))
    ]
    _, bare, ours = lines(rounds, 10)

    assert bare.split()[-1] == "1.00"
    assert ours.split()[-2:] == ["410", "1.10"]


def test_every_item_can_be_answered(tmp_path: Path) -> None:
    write_items(tmp_path / "sums.jsonl", 50)
    rows = [json.loads(line) for line in (tmp_path / "sums.jsonl").read_text().splitlines()]

    assert len({row["id"] for row in rows}) == 50
    for row in rows:
        a, b = row["input"].removeprefix("What is ").removesuffix("?").split(" + ")
        assert int(a) + int(b) == int(row["target"])
