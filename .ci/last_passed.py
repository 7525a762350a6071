"""Notes in `.ci/last_passed` when each of the long runs last passed.

last_passed.py: prints each run, and how many commits ago it passed
last_passed.py COMMIT NAME [PART/PARTS]: notes that this run, or this part of it, which began at
    this commit, passed just now
last_passed.py --within COMMITS NAME: exits with 1 if the run, or a part, passed before that,
    or if its parts passed at several commits
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

RECORD = Path(".ci/last_passed")
CHANGED = "-changed"


@dataclass(frozen=True, slots=True)
class Passed:
    """part: which of how many parts, as in 1/3. commit: with CHANGED if files were changed, or
    if another commit was checked out during the run.
    """

    name: str
    part: str
    commit: str
    day: str

    @classmethod
    def parse(cls, line: str) -> Self:
        run, commit, day = line.split()
        name, _, part = run.partition(":")
        return cls(name, part or "1/1", commit, day)

    def __str__(self) -> str:
        return f"{self.run} {self.commit} {self.day}"

    @property
    def run(self) -> str:
        return self.name if self.part == "1/1" else f"{self.name}:{self.part}"

    @property
    def parts(self) -> int:
        return int(self.part.partition("/")[2])

    def commits_ago(self) -> int | None:
        """Returns None for a changed checkout, and for a commit that is not in the history."""
        if self.commit.endswith(CHANGED):
            return None
        counted = _git("rev-list", "--count", "--left-right", f"{self.commit}...HEAD")
        only_there, _, since = counted.partition("\t")
        return int(since) if only_there == "0" else None

    def sentence(self) -> str:
        ago = self.commits_ago()
        number = "an unknown number of" if ago is None else ago
        return (
            f"make {self.run}: last passed at {self.commit} on {self.day}, {number} commits ago"
        )


def _git(*words: str) -> str:
    done = subprocess.run(  # noqa: S603 - git, on words of this file
        ("git", *words),  # noqa: S607 - git of this machine
        capture_output=True,
        check=False,
        text=True,
    )
    return done.stdout.strip()


def _read() -> list[Passed]:
    return [Passed.parse(line) for line in RECORD.read_text().splitlines()]


def note(started_at: str, name: str, part: str) -> None:
    """A part replaces itself, and what is noted of a division into another number of parts."""
    files = _git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){RECORD}"
    )
    started = _git("rev-parse", "--short", started_at)
    has_changed = files or started != _git("rev-parse", "--short", "HEAD")
    commit = started + (CHANGED if has_changed else "")
    today = datetime.now(UTC)  # noqa: TID251 - a script of the checkout
    new = Passed(name, part, commit, f"{today:%Y-%m-%d}")
    kept = [
        old
        for old in _read()
        if old.name != name or (old.parts == new.parts and old.part != part)
    ]
    RECORD.write_text("".join(f"{line}\n" for line in sorted(map(str, [*kept, new]))))


def reasons_to_refuse(name: str, limit: int) -> Iterator[str]:
    """Says of each part of the run that is missing, or too old, to run it."""
    noted = {old.part: old for old in _read() if old.name == name}
    parts = max((old.parts for old in noted.values()), default=1)
    for number in range(1, parts + 1):
        part = noted.get(f"{number}/{parts}")
        if part is None:
            yield f"make {name}, part {number}/{parts}, is not noted in {RECORD}: run it"
        elif (ago := part.commits_ago()) is None or ago > limit:
            yield f"{part.sentence()}; at most {limit} are allowed: run it again"
    commits = {part.commit for part in noted.values()}
    if len(commits) > 1:
        yield (
            f"the parts of make {name} passed at {', '.join(sorted(commits))}, so a case may "
            "be in no part: run all parts at one commit"
        )


def main(words: list[str]) -> int:
    match words:
        case []:
            print("\n".join(old.sentence() for old in _read()))
        case ["--within", commits, name]:
            reasons = list(reasons_to_refuse(name, int(commits)))
            print("\n".join(reasons), file=sys.stderr)
            return min(len(reasons), 1)
        case [commit, name]:
            note(commit, name, "1/1")
        case [commit, name, part]:
            note(commit, name, part)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
