"""Runs processes of two versions beside one another, on one installation and one database:
routers, control processes and eval workers that are named `router-old`, `control-new` and so on
(`TwoVersions`). What the database holds is read in plain SQL, which fits both schemas.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final

import sqlalchemy as sa
import yaml

from harness import package_data
from harness.store import engine
from tests.support.providers.scripted_chat import Response
from tests.support.site.forked_commands import ForkedCommands, forked_commands
from tests.support.site.processes import Site, free_port

SERVES: Final = {"router": ("serve", "router"), "control": ("serve", "control")}
WORKER: Final = ("worker", "--slots", "1")
LONGEST_HOLD_S: Final = 60.0


@dataclass
class HeldProvider:
    """Answers eval workers and counts what was asked; after `hold` and so many calls each one
    waits for `release`, or for a minute: a worker gives a call up after two and asks again.
    """

    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    _limit: int | None = None
    _released: Event = field(default_factory=Event)
    _lock: Lock = field(default_factory=Lock)

    def __call__(self, body: Mapping[str, Any]) -> Response:
        with self._lock:
            self.asked[body["model"], body["messages"][-1]["content"]] += 1
            waits = self._limit is not None and self.asked.total() > self._limit
        if waits:
            self._released.wait(LONGEST_HOLD_S)
        return Response("fine")

    def hold(self, calls: int) -> None:
        """From now on it answers so many more calls, and the others after `release`."""
        with self._lock:
            self._limit = self.asked.total() + calls
            self._released = Event()

    def release(self) -> None:
        with self._lock:
            self._limit = None
            self._released.set()

    def calls(self, model: str) -> dict[str, int]:
        """How often each prompt was asked of a model."""
        with self._lock:
            return {
                prompt: count for (name, prompt), count in self.asked.items() if name == model
            }


@dataclass
class TwoVersions:
    """place: the installation. code: of each version, `old` and `new`. several_hosts: each
    process has a `home` of its own, as on other machines.
    """

    place: Site
    code: Mapping[str, Path]
    commands: Mapping[str, ForkedCommands]
    database: sa.Engine
    several_hosts: bool

    @property
    def url(self) -> str:
        return self.database.url.render_as_string(hide_password=False)

    def run(self, version: str, *words: str, expect: int = 0) -> str:
        """One command of a version, to its end: what it printed."""
        return self.commands[version].run(*words, expect=expect)

    def id_from(self, version: str, prefix: str, *words: str) -> str:
        """The same; the first id with the prefix that it prints."""
        said = self.run(version, *words)
        found = re.search(rf"\b{prefix}_[0-9a-z]{{8,}}\b", said)
        assert found is not None, said
        return found[0]

    def start(self, *names: str, home_of: str | None = None) -> None:
        """Starts processes side by side. home_of: whose `home` they get, not their own."""
        for name in names:
            kind, version, *_ = name.split("-")
            self.place.code[name] = self.code[version]
            own = self.place.environment.setdefault(name, {})
            if kind in SERVES:
                self.port(name)
                own[f"SWAPGATE__{kind.upper()}__PORT"] = str(self.place.ports[name])
            if self.several_hosts:
                own["SWAPGATE__HOME"] = str(self._home(home_of or name))
            self.place.start(name, *SERVES.get(kind, WORKER))
        for name in names:
            if name.partition("-")[0] in SERVES:
                self.place.answers(name, "/readyz")

    def port(self, name: str) -> int:
        """Where the process listens, or will."""
        return self.place.ports.setdefault(name, free_port())

    def change_file(self, **sections: object) -> None:
        """Sections that those who read the file from now on find in it."""
        written = yaml.safe_load(self.place.config.read_text(encoding="utf-8"))
        changed = yaml.safe_dump({**written, **sections}, sort_keys=False)
        self.place.config.write_text(changed, encoding="utf-8")

    def logs_are_clean(self) -> None:
        for name in self.place.children:
            log = self.place.log(name)
            for fault in ("job_failed", "reconcile_failed", "Traceback"):
                assert fault not in log, f"{name}: {log[-6000:]}"

    def _home(self, name: str) -> Path:
        home = self.place.folder / f"home-{name}"
        if not home.exists():
            shutil.copytree(self.place.folder / "home", home)
        return home

    def stop(self, name: str) -> None:
        assert self.place.terminate(name) == 0, self.place.log(name)[-4000:]

    def rows(self, statement: str, **values: object) -> Sequence[sa.Row[Any]]:
        with self.database.connect() as db:
            return db.execute(sa.text(statement), values).all()

    def value(self, statement: str, **values: object) -> Any:
        ((value,),) = self.rows(statement, **values)
        return value

    def phase(self, proposal: str) -> str:
        return str(self.value("SELECT phase FROM proposal WHERE id = :of", of=proposal))

    def leader(self) -> str:
        """The name of the control process that leads; empty where it is gone."""
        pid = self.value("SELECT owner FROM leadership").rpartition("-")[2]
        live = self.place.children.items()
        return next((n for n, c in live if str(c.pid) == pid and c.poll() is None), "")

    def serves(self, route: str) -> str:
        """The model that serves the route's incumbent arm."""
        newest = (
            "SELECT t.model FROM route_version v JOIN target t ON t.id = v.incumbent"
            " WHERE v.route = :of ORDER BY v.version DESC LIMIT 1"
        )
        return str(self.value(newest, of=route))

    def rollout(self, proposal: str) -> tuple[Any, ...]:
        """Its rules as they are stored: they never change."""
        rules = "SELECT id, policy, salt, started_at FROM rollout WHERE proposal = :of"
        (row,) = self.rows(rules, of=proposal)
        rule = row.policy
        read = json.loads(rule) if isinstance(rule, str) else rule
        return row.id, read, row.salt, row.started_at

    def step(self, proposal: str) -> tuple[int, str]:
        (row,) = self.rows("SELECT step, state FROM rollout WHERE proposal = :of", of=proposal)
        return row.step, row.state

    def weights(self, route: str) -> list[int]:
        """The shares that the route's canary had, one after the other."""
        rows = self.rows(
            "SELECT weight_bps FROM route_version WHERE route = :of AND weight_bps > 0"
            " ORDER BY version",
            of=route,
        )
        return list(dict.fromkeys(row.weight_bps for row in rows))

    def samples(self, run: str) -> list[str]:
        rows = self.rows("SELECT item FROM sample WHERE run = :of AND epoch = 1", of=run)
        return [row.item for row in rows]

    def run_state(self, run: str) -> str:
        return str(self.value("SELECT state FROM eval_run WHERE id = :of", of=run))


@contextmanager
def two_versions(
    folder: Path, earlier: Path, url: str, settings: dict[str, object]
) -> Iterator[TwoVersions]:
    """An installation's file, of which nothing runs and no table is there yet.

    earlier: the folder of the older code. settings: of the file.
    """
    code = {"old": earlier, "new": package_data.ROOT}
    parsed = engine.parse(url)
    database = sa.create_engine(parsed)
    place = Site(folder, {"database_url": url, **settings})
    with ExitStack() as ends:
        ends.callback(database.dispose)
        ends.callback(place.close)
        commands = {
            version: ends.enter_context(forked_commands(place, folder_))
            for version, folder_ in code.items()
        }
        several = parsed.get_backend_name() == "postgresql"
        yield TwoVersions(place, code, commands, database, several_hosts=several)
