"""Remembers how a world looked after a common beginning, instead of living through it again.

Hundreds of tests begin with the same proposal in the same canary, which takes half a second of
CPU. From the same rows, clock, ids, policy and suite the control plane writes the same rows, so
a later test of this process gets a copy of them. A world that differs in anything else (its
script, sinks, workers, another database), and a test that watches or changes the product's
code, lives through its beginning.
"""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from copy import copy
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from harness.app.store.store import Store
from harness.evals.settings import SuiteSettings
from tests.support.control.counting_ids import CountingRandomIds
from tests.support.control.manual_clock import ManualClock
from tests.support.site.signing_keys import CONTROL

if TYPE_CHECKING:
    from tests.support.control.bare_installation import BareInstallation

T = TypeVar("T")
# Tests with them may look at the steps themselves, or replace one.
WATCHING: Final = frozenset({"caplog", "capfd", "capsys", "monkeypatch"})
FUNCTIONS: Final = ("script", "boot", "pace", "served")
# Those of a new world, to which nothing was sent.
SINKS: Final[Mapping[str, object]] = {
    "down": set(),
    "only": {},
    "kept": {"chat": [], "mail": []},
}
# Of a database file: counters of changes, which differ between equal rows.
HEADER_BYTES: Final = 100


class Key(NamedTuple):
    """What a step's outcome follows from."""

    step: str
    policies: str
    suites: str
    clock: str
    ids: str
    rows: bytes


@dataclass(frozen=True, slots=True)
class Moment:
    """A world after a step. rows: a database in memory. answer: what the step returned."""

    rows: sqlite3.Connection
    clock: ManualClock
    chance: CountingRandomIds
    answer: Any


class Memory:
    """The worlds that this process remembers. is_on: whether the running test may use them."""

    def __init__(self) -> None:
        self.is_on = False
        self._kept: dict[Key, Moment] = {}

    def allow_for(self, fixtures: frozenset[str]) -> None:
        self.is_on = not WATCHING & fixtures

    def after(self, world: "BareInstallation", step: str, live: Callable[[], T]) -> T:
        """Returns what `live` returns, and leaves the world as `live` would."""
        if not (self.is_on and _is_plain(world)):
            return live()
        key = _key(world, step)
        if key not in self._kept:
            answer = live()
            if _is_plain(world):
                self._kept[key] = _moment(world, answer)
            return answer
        moment = self._kept[key]
        with closing(sqlite3.connect(_file(world.store))) as db:
            moment.rows.backup(db)
        vars(world.clock).update(vars(moment.clock))
        vars(world.chance).update(vars(moment.chance))
        return cast("T", moment.answer)


MEMORY: Final = Memory()


def _is_plain(world: "BareInstallation") -> bool:
    """Whether nothing but the key's parts decides what the world's steps do."""
    store = world.store
    own = vars(world)
    return (
        type(store) is Store
        and store._engine.dialect.name == "sqlite"
        and store._signatures is CONTROL
        and store._clock is world.clock
        and type(world.clock) is ManualClock
        and type(world.chance) is CountingRandomIds
        and own.keys() == {"suites", *(field.name for field in fields(world))}
        and all(own[name] is getattr(type(world), name) for name in FUNCTIONS if name in own)
        and (own.get("calibration"), world.drift, world.observe_only) == (None, {}, False)
        and getattr(world.sinks, "__dict__", None) == SINKS
        and all(
            type(suite) is SuiteSettings and type(suite.path) is PosixPath
            for suite in world.suites.values()
        )
        # A test that counts statements must see them.
        and not store._engine.dispatch.before_cursor_execute
    )


def _key(world: "BareInstallation", step: str) -> Key:
    suites = [
        (replace(suite, path=None), Path(str(suite.path)).read_bytes())
        for suite in world.suites.values()
    ]
    with closing(_copy(world.store)) as rows:
        digest = sha256(world.store._secret + rows.serialize()[HEADER_BYTES:]).digest()
    return Key(
        step=step,
        policies=repr((world.policy, world.policies)),
        suites=repr(suites),
        clock=repr(vars(world.clock)),
        ids=repr(vars(world.chance)),
        rows=digest,
    )


def _moment(world: "BareInstallation", answer: object) -> Moment:
    return Moment(_copy(world.store), copy(world.clock), copy(world.chance), answer)  # type: ignore[arg-type]  # _is_plain looked


def _copy(store: Store) -> sqlite3.Connection:
    copied = sqlite3.connect(":memory:", check_same_thread=False)
    with closing(sqlite3.connect(_file(store))) as db:
        db.backup(copied)
    return copied


def _file(store: Store) -> str:
    return str(store._engine.url.database)
