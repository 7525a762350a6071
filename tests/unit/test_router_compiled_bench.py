"""The benchmark of the compiled router: what it compiles, and what it writes out for that."""

from dataclasses import replace
from typing import Any

from benchmarks.router import compiled_build

SOURCE = """
from dataclasses import dataclass, field

@dataclass(frozen=True, slots=True)
class Kept:
    name: str
    seen: list[str] = field(default_factory=list)  # in order
    size: int = 3
    twice: int = field(init=False)

    def __post_init__(self) -> None:
        self.twice = 2 * self.size
"""


def test_every_module_that_is_compiled_is_there_and_has_its_order() -> None:
    names = compiled_build.modules()

    assert [name for name in names if not (compiled_build.ROOT / name).is_file()] == []
    assert names == sorted(set(names))


def test_an_init_that_is_written_out_makes_the_same_object() -> None:
    written = compiled_build.with_init(SOURCE)
    scope: dict[str, Any] = {"__name__": __name__}
    exec(written, scope)  # noqa: S102 - our own source
    one, other = scope["Kept"]("a"), scope["Kept"]("a")

    assert "def __init__(self, name: str, seen: list[str] | None = None" in written
    assert (one.seen, one.size, one.twice) == ([], 3, 6)
    assert one == other
    assert one.seen is not other.seen
    assert replace(one, size=5).twice == 10
