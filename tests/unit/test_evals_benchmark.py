"""The benchmark of eval workers: its table and its items."""

import json
from pathlib import Path

from benchmarks.evals.run import BARE, OURS, Figures, lines, write_items


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
