"""Holds the suites of the configuration by name, and the models that score them.

It imports Inspect only when a caller needs a suite that is a Python file with a `@task`. All
methods raise NotFound for an unknown suite and InputError for a broken file.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from evals.scorers.interface import written
from evals.scorers.preference import PREFERENCE
from evals.suites.item_clusters import describe_dependence
from evals.suites.items import read_turn
from evals.suites.suite import (
    REPLACED,
    Suite,
    canonical_text,
    describe_sample,
    load_suite,
    task_file,
)
from harness.evals.ports import ItemRequest
from harness.evals.recorded_turn import RecordedTurn
from harness.evals.settings import SuiteSettings, find_suite
from harness.frame import package_data
from harness.frame.errors import ConfigError, InputError, NotFound
from harness.frame.suggestions import did_you_mean
from harness.gate.suite_plan import ItemGroups, SuitePin
from harness.providers.target import Target


class ConfiguredSuites:
    """Implements SuiteCatalog over the configured suites. Pins follow changes of their files.

    added: returns the suites that the configuration has gained; empty if it did not change.
    A known suite keeps its settings until the process ends.
    """

    def __init__(
        self,
        suites: Mapping[str, SuiteSettings],
        added: Callable[[], Mapping[str, SuiteSettings]] = dict,
    ) -> None:
        self._suites = dict(suites)
        self._added = added
        self._tasks: dict[tuple[str, int, int], tuple[SuitePin, ItemGroups]] = {}
        self._loaded: dict[tuple[str, int, int], Suite] = {}

    def names(self) -> Sequence[str]:
        self._refresh()
        return sorted(self._suites)

    def list_own_names(self) -> Sequence[str]:
        datasets = package_data.path("datasets")
        return [
            name
            for name in self.names()
            if (path := self._suites[name].path) is None or not path.is_relative_to(datasets)
        ]

    @property
    def judges(self) -> "SuiteJudges":
        return SuiteJudges(self)

    def _refresh(self) -> None:
        if added := self._added():
            self._suites = {**added, **self._suites}

    def settings(self, suite: str) -> SuiteSettings:
        """Returns a suite's settings. Reads the configuration's additions first for an unknown
        name.
        """
        found = find_suite(self._suites, suite)
        if found is None:
            self._refresh()
            found = find_suite(self._suites, suite)
        if found is not None:
            return found
        names = self.names()
        listed_names = ", ".join(names) or "none; add one under `suites` in the configuration"
        hint = did_you_mean(
            suite,
            names,
            otherwise=f"; there are: {listed_names}",
            cutoff=0.4,
        )
        raise NotFound(f"no suite {suite!r}{hint}")

    def suite(self, suite: str) -> Suite:
        """Returns a suite with a data file. Raises NotFound, ConfigError, InputError."""
        settings = self.settings(suite)
        key = _build_cache_key(suite, settings.path or Path())
        if key not in self._loaded:
            self._loaded[key] = load_suite(settings)
        return self._loaded[key]

    def _load_data(self, suite: str) -> Suite | None:
        return None if self.settings(suite).task is not None else self.suite(suite)

    def _load_task(self, suite: str) -> tuple[SuitePin, ItemGroups]:
        settings = self.settings(suite)
        key = _build_cache_key(settings.name, task_file(settings)[0])
        if key not in self._tasks:
            # The import takes seconds.
            from evals.runner.inspect_tasks import load_task_suite  # noqa: PLC0415

            loaded = load_task_suite(settings)
            self._tasks[key] = loaded.pin, loaded.groups
        return self._tasks[key]

    def pin(self, suite: str) -> SuitePin:
        return data.pin if (data := self._load_data(suite)) else self._load_task(suite)[0]

    def groups(self, suite: str) -> ItemGroups:
        return data.groups if (data := self._load_data(suite)) else self._load_task(suite)[1]

    def split(self, suite: str) -> Mapping[str, str]:
        return self.settings(suite).split

    def requests(self, suite: str) -> Mapping[str, ItemRequest]:
        """Returns the requests by which clients would ask the items.

        Raises ConfigError for an Inspect task, whose requests only the task knows.
        """
        data = self._load_data(suite)
        if data is None:
            raise ConfigError(
                f"suite {suite!r} is an Inspect task, whose requests Swapproof cannot read: "
                "split only suites with a data file"
            )
        return {item: data.request(item) for item in data.items}

    def describe_dependence(self, suite: str) -> str:
        """Describes equal items, found clusters and large clusters; empty without any."""
        if data := self._load_data(suite):
            return data.dependence
        return describe_dependence(self._load_task(suite)[1], {})

    def answers_of(self, suite: str) -> str:
        return self._traffic_option(suite, "answers_of")

    def oldest_record(self, suite: str) -> datetime | None:
        if not self.answers_of(suite):
            return None
        items = self.suite(suite).items.values()
        return min(datetime.fromisoformat(item.metadata["provenance"]["at"]) for item in items)

    def conversation(self, suite: str, item: str) -> Sequence[Mapping[str, object]]:
        data = self._load_data(suite)
        if data is None or item not in data.items:
            return ()
        return data.context(item)

    def recorded_turns(self, suite: str) -> Mapping[str, RecordedTurn]:
        if not self.answers_of(suite):
            return {}
        turns = {item.id: read_turn(item) for item in self.suite(suite).items.values()}
        return {item: turn for item, turn in turns.items() if turn is not None}

    def judge_reason(self, suite: str) -> str:
        return self._traffic_option(suite, "judge_anyway")

    def _traffic_option(self, suite: str, name: str) -> str:
        """Returns an option of a suite of traffic; empty for any other suite."""
        settings = self.settings(suite)
        is_traffic = settings.scorer == PREFERENCE.name
        return str(settings.scorer_options.get(name, "")) if is_traffic else ""

    def guess_tokens(self, suite: str) -> tuple[float, float] | None:
        """Returns the estimated mean tokens of question and answer; None for a task."""
        return data.guessed_tokens if (data := self._load_data(suite)) else None

    def title(self, suite: str) -> str:
        return self.settings(suite).title or suite

    def data_class(self, suite: str) -> str:
        return self.settings(suite).data_class

    def describe_sample(self, suite: str) -> str:
        """Describes the data that the suite omits, its unlabelled items and its unreadable
        characters; empty if there are none.
        """
        settings = self.settings(suite)
        data = None if settings.path is None else self.suite(suite)
        items = data.items.values() if data else ()
        unlabelled = len(data.unlabelled) if data else 0
        broken = sum(REPLACED in canonical_text(item) for item in items)
        replaced = (
            f"{broken} items contain {REPLACED} instead of a character that Swapproof could "
            "not read."
        )
        remarks = [
            describe_sample(settings),
            describe_unlabelled(unlabelled, len(items)) if unlabelled else "",
            replaced if broken else "",
        ]
        return " ".join(filter(None, remarks))

    def item_texts(self, suite: str, item: str) -> tuple[str, str]:
        """Returns an item's input and target as texts for people.

        Raises NotFound for an unknown item, and for an Inspect task, whose items are not loaded
        here.
        """
        data = self._load_data(suite)
        if data is None:
            raise NotFound(
                f"suite {suite!r} is an Inspect task; only the stored prompts have its items"
            )
        suite_item = data.items.get(item)
        if suite_item is None:
            raise NotFound(f"suite {suite!r} has no item {item!r}; check if its data changed")
        return suite_item.input, written(suite_item.target)


def describe_unlabelled(unlabelled: int, items: int) -> str:
    """Describes the items without a label, and how far they open the difference."""
    share = 100 * unlabelled / items
    return (
        f"{unlabelled:,} of {items:,} items have no label: their missing scores open the "
        f"difference of the models by up to {share:.1f} points in either direction."
    )


class SuiteJudges(Mapping[str, Target]):
    """Maps each suite with a judge to the judge's target, also suites added later."""

    def __init__(self, suites: ConfiguredSuites) -> None:
        self._suites = suites

    def __getitem__(self, suite: str) -> Target:
        try:
            judge = self._suites.settings(suite).judge
        except NotFound:
            raise KeyError(suite) from None
        if judge is None:
            raise KeyError(suite)
        return judge.target

    def __iter__(self) -> Iterator[str]:
        names = self._suites.names()
        return (name for name in names if self._suites.settings(name).judge is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _build_cache_key(suite: str, path: Path) -> tuple[str, int, int]:
    """Returns a key that changes with the file's time and size."""
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(
            f"suite {suite!r}: {path} cannot be read: {error.strerror}; fix its path in the "
            "configuration"
        ) from error
    return suite, stat.st_mtime_ns, stat.st_size
