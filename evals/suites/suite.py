"""Loads a suite from its settings and data file: items, prompts, scorer and pin.

The pin hashes everything that decides a score. Each change of the questions or of the scoring
must change the pin, because a verdict is valid for one pin only. `inspect_tasks` has suites
that are code.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from string import ascii_uppercase
from typing import Any, Final

from evals.scorers import (
    AnswerJudge,
    AnswerToolCall,
    Options,
    Scorer,
    ScoreResult,
    find_scorer,
    scorer_identity,
)
from evals.scorers.code import CODE
from evals.scorers.interface import written
from evals.scorers.preference import PREFERENCE
from evals.suites.conversation import (
    check_fields,
    conversation,
    merge_fields,
    message_text,
)
from evals.suites.equal_items import find_repeats
from evals.suites.item_clusters import (
    cluster_items,
    describe_dependence,
    describe_template,
    item_owners,
)
from evals.suites.items import (
    Item,
    file_sha256,
    find_line,
    is_answered,
    list_openings,
    load_items,
    load_references,
)
from harness.evals.ports import ItemRequest
from harness.evals.settings import SuiteSettings
from harness.frame.errors import ConfigError, InputError
from harness.frame.formatting import format_excerpt
from harness.frame.plain_data import digest
from harness.gate.suite_plan import (
    EXCERPT,
    JUDGE_SEPARATOR,
    ItemGroups,
    SuitePin,
    compared_texts,
    texts_fingerprint,
)

# Part of the scorer's pin, so that each verdict shows that code ran without a container.
UNCONTAINED = "+uncontained"
CHARACTERS_PER_TOKEN: Final = 4.0
MANIFEST: Final = "manifest.toml"  # in the folder of the suites' data
LEFT_OUT: Final[Mapping[str, str]] = {
    "too_large": "over the size limit of captures (copy_max_bytes)",
    "unlabelled": "without a label",
    "deleted": "whose lines were deleted from the export",
    "of_frequent_callers": "of callers with more than 2 requests",
    "unscorable": "that the scorer cannot judge",
    "not_taken": "that the conversion did not take",
    "assertions_not_taken": "of their assertions",
}
_SYSTEM_ROLES: Final = ("system", "developer")
REPLACED: Final = "\ufffd"
PLACEHOLDER = re.compile(r"\{(input|choices)\}")


@dataclass(frozen=True)
class Suite:
    """A suite that is loaded and checked. items: those that the scorer can judge, by id."""

    settings: SuiteSettings
    items: Mapping[str, Item]
    scorer: Scorer
    options: Options
    left_out: Mapping[str, str]  # item id → why the scorer cannot judge the item
    data_sha256: str  # of the data file
    judge_pin: str  # the judge's part of the pin; empty without a judge
    uncontained: bool = False  # answers' code runs without a container
    # Item id → the id of the earlier item that asks and expects the same; the suite leaves out
    # the later item, because equal items are one item (statistics.md §1.12).
    repeats: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def pin(self) -> SuitePin:
        """The hashes of everything that decides a score; cached, because they take time."""
        return SuitePin(
            name=self.settings.name,
            version=self.settings.version,
            data_sha256=self.data_sha256,
            scorer=scorer_identity(self.scorer, self.options)
            + UNCONTAINED * self.uncontained
            + self.judge_pin,
            template=_hash_prompt(self.settings, self.groups)[:16],
            items=len(self.items),
            texts=texts_fingerprint(
                compared_texts(
                    [*map(spoken_text, self.items.values())],
                    [*map(canonical_text, self.items.values())],
                )
            ),
        )

    def prompt(self, item: str) -> str:
        """Returns the text that an item asks; for a conversation, the text that people read as
        input.
        """
        if self.context(item):
            return self.items[item].input
        return render_prompt(self.settings.template, self.items[item])

    def context(self, item: str) -> tuple[Mapping[str, Any], ...]:
        """Returns the item's conversation, which replaces the template; empty without one."""
        return conversation(self.items[item])

    async def judge_answer(
        self,
        answer: str,
        item: Item,
        judging: AnswerJudge,
    ) -> ScoreResult:
        """Judges an answer to a suite's or a reference's item. Raises NotJudged."""
        assert self.scorer.judged is not None  # noqa: S101 - load_suite checks it
        return await self.scorer.judged(judging, answer, item, self.options)

    @cached_property
    def groups(self) -> ItemGroups:
        """The items' order, clusters and slices, for the plan of a run."""
        cluster_by_item = {
            item.id: item.cluster for item in self.items.values() if item.cluster
        }
        slices = {
            name: {item.id: item.slices[index] for item in self.items.values()}
            for index, name in enumerate(self.settings.slices)
        }
        items = tuple(self.items)
        openings = list_openings(self.items.values())
        found = cluster_items(
            items,
            {item.id: canonical_text(item) for item in openings},
            item_owners(
                {item.id: item.metadata for item in openings},
                {
                    item.id: [*map(message_text, conversation(item))] or [item.input]
                    for item in openings
                },
            ),
            ItemGroups(items, cluster_by_item, self.settings.cluster, slices),
        )
        return replace(found, **self._describe_traffic(found)) if self.is_traffic else found

    @property
    def is_traffic(self) -> bool:
        """Tells whether the targets are logged answers, and a judge compares with them."""
        return self.scorer.name == PREFERENCE.name

    @property
    def answers_of(self) -> str:
        """The model whose logged answers are the targets; empty for other suites."""
        return str(self.options["answers_of"]) if self.is_traffic else ""

    def _describe_traffic(self, groups: ItemGroups) -> dict[str, Any]:
        """Returns the judge's name, and the requests of each cluster in the log.

        Callers with similar texts may share a cluster, which then has the requests of all.
        """
        requests: dict[str, dict[str, int]] = {}
        for item in self.items.values():
            cluster = groups.clusters.get(item.id, "")
            count = item.metadata.get("requests")
            requests.setdefault(cluster, {})[item.cluster] = count or 1
        judge = self.settings.judge
        name = judge.target.name if judge else ""
        is_logged = any(map(is_answered, self.items.values()))
        answers = "logged answers" if is_logged else "answers of now"
        reason = str(self.options["judge_anyway"]).strip().rstrip(".")
        why = f" (in spite of its maker: {reason})" if reason else ""
        return {
            "judged_by": f"{name}{why}, against {answers}",
            "requests": {cluster: sum(counts.values()) for cluster, counts in requests.items()}
            if groups.clusters
            else {},
        }

    @cached_property
    def unlabelled(self) -> Mapping[str, str]:
        """Maps each item without a label to the reason; runs do not ask these items."""
        return {item.id: item.unlabelled for item in self.items.values() if item.unlabelled}

    @cached_property
    def dependence(self) -> str:
        """Describes equal items, found clusters and large clusters; empty without any."""
        description = describe_dependence(self.groups, self.repeats)
        if self.groups.clusters:
            return description
        template = describe_template(
            {item.id: canonical_text(item) for item in self.items.values()}
        )
        return "; ".join(filter(None, [description, template]))

    @cached_property
    def guessed_tokens(self) -> tuple[float, float]:
        """Estimates the mean tokens of question and answer, at four characters per token."""
        fixed = len(self.settings.system) + len(str(dict(self.settings.request)))
        question = fmean(
            len(self.prompt(item)) + sum(len(str(turn)) for turn in self.context(item))
            for item in self.items
        )
        target = fmean(
            len(written(item.target)) for item in self.items.values() if not item.unlabelled
        )
        output = 16 + target / CHARACTERS_PER_TOKEN
        limit = self.settings.max_output_tokens
        answer_tokens = output if limit == "auto" else min(limit, output)
        return (fixed + question) / CHARACTERS_PER_TOKEN, answer_tokens

    def fields(self, item: str) -> Mapping[str, object]:
        return merge_fields(self.settings.request, self.items[item])

    def request(self, item: str) -> ItemRequest:
        """Returns the item's request. Its endpoint and headers are in its metadata."""
        metadata = self.items[item].metadata
        headers = metadata.get("headers")
        texts = headers.items() if isinstance(headers, Mapping) else ()
        messages = self.context(item) or ({"role": "user", "content": self.prompt(item)},)
        return ItemRequest(
            endpoint=str(metadata.get("endpoint") or "chat"),
            body={"model": "route", "messages": list(messages), **self.fields(item)},
            headers={str(name).lower(): str(value) for name, value in texts},
        )

    def score(
        self,
        answer: str,
        item: str,
        calls: Sequence[AnswerToolCall] = (),
    ) -> ScoreResult:
        """Scores an answer without a judge and without a sandbox.

        Args:
            calls: the answer's tool calls.
        """
        if self.scorer.calls is not None:
            return self.scorer.calls(calls, answer, self.items[item], self.options)
        return self.scorer.score(answer, self.items[item], self.options)


def manifest_entries(manifest: Path) -> list[dict[str, object]]:
    """Reads the manifest's entries; empty without a manifest. Raises InputError."""
    if not manifest.exists():
        return []
    try:
        entries = tomllib.loads(manifest.read_text(encoding="utf-8")).get("dataset", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{manifest}: is not TOML: {error}") from None
    return [dict(entry) for entry in entries]


def describe_sample(settings: SuiteSettings) -> str:
    """Describes what a captured or converted suite omits; empty if it omits nothing."""
    if settings.path is None:
        return ""
    matches = (
        entry
        for entry in manifest_entries(settings.path.with_name(MANIFEST))
        if entry.get("file") == settings.path.name
    )
    entry = next(matches, {})
    left_out = [
        f"{entry[name]} {reason}" for name, reason in LEFT_OUT.items() if entry.get(name)
    ]
    if not left_out:
        return ""
    sample_note = f", from {entry['drawn']} sampled requests," if entry.get("drawn") else ""
    return f"Its {entry.get('items')} items{sample_note} omit: {', '.join(left_out)}."


def render_prompt(template: str, item: Item) -> str:
    """Writes an item's message. Choices follow it unless the template has `{choices}`."""
    choices = "\n".join(
        f"{letter}) {choice}"
        for letter, choice in zip(ascii_uppercase, item.choices, strict=False)
    )
    # One pass, so that braces in an item's own text stay as they are.
    values = {"input": item.input, "choices": choices}
    text = PLACEHOLDER.sub(lambda match_: values[match_[1]], template)
    return f"{text}\n\n{choices}" if choices and "{choices}" not in template else text


def canonical_text(item: Item) -> str:
    """Joins an item's texts and its sorted choices; leaves the template out."""
    messages = conversation(item)
    words = "\n".join(map(message_text, messages)) if messages else item.input
    return "\n".join([words, *sorted(item.choices)])


def spoken_text(item: Item) -> str:
    """Joins an item's texts as `canonical_text` does, without system messages."""
    messages = conversation(item)
    texts = [
        message_text(message) for message in messages if message["role"] not in _SYSTEM_ROLES
    ]
    return "\n".join([*(texts or [item.input]), *sorted(item.choices)])


def load_suite(settings: SuiteSettings) -> Suite:
    """Loads a suite with a data file. Raises ConfigError for faulty settings. Raises InputError
    for a faulty file, and if the scorer can judge no item.
    """
    if settings.path is None:
        raise ConfigError(f"suite {settings.name!r}: give it a path (data file) or a task")
    if "{input}" not in settings.template:
        raise ConfigError(f"suite {settings.name!r}: its template must contain {{input}}")
    scorer = find_scorer(settings.scorer)
    _check_judge(settings, scorer)
    _check_draw(settings, scorer)
    check_fields(settings.request, f"suite {settings.name!r}: request")
    loaded = load_items(
        settings.path,
        name=settings.name,
        input_field=settings.input_field,
        target_field=settings.target_field,
        cluster_field=settings.cluster,
        slice_fields=settings.slices,
    )
    labelled = [item for item in loaded if not item.unlabelled]
    if not labelled:
        raise InputError(f"{settings.path}: no item has a label, so no answer gets a score")
    try:
        options = scorer.complete(labelled, scorer.options(settings.scorer_options))
    except InputError as error:
        raise InputError(f"{settings.path}: {error}") from None
    uncontained = scorer.name == CODE.name and settings.code_uncontained
    left_out = _check_items(settings, settings.path, loaded, scorer, options)
    # Each drawn request is one of the population, also if it repeats another caller's.
    is_drawn = scorer.name == PREFERENCE.name
    repeats = {} if is_drawn else find_repeats(loaded, settings.path, settings.input_field)
    items = {
        item.id: item
        for item in loaded
        if item.id not in left_out and item.id not in repeats and _is_in_slice(settings, item)
    }
    if settings.only_slice and not items:
        raise InputError(f"{settings.path}: no item has the slice {settings.only_slice!r}")
    if all(item.unlabelled for item in items.values()):
        raise InputError(f"{settings.path}: scorer {scorer.name!r} cannot judge any item")
    return Suite(
        settings,
        items,
        scorer,
        options,
        left_out,
        _hash_data(settings, settings.path),
        _build_judge_pin(settings),
        uncontained,
        repeats,
    )


def _is_in_slice(settings: SuiteSettings, item: Item) -> bool:
    """Tells whether the item is in the settings' slice; always without one."""
    name, _, value = settings.only_slice.partition(" = ")
    return not name or item.slices[settings.slices.index(name)] == value


def _hash_data(settings: SuiteSettings, path: Path) -> str:
    """Hashes the data file, and the name of the slice if the suite is only a slice of it."""
    sha256 = file_sha256(path)
    return digest([sha256, settings.only_slice]) if settings.only_slice else sha256


def _check_items(
    settings: SuiteSettings,
    path: Path,
    loaded: Sequence[Item],
    scorer: Scorer,
    options: Options,
) -> Mapping[str, str]:
    """Returns the items that the scorer cannot judge, with the reason. Raises InputError as
    `file:line: …` for a faulty item.
    """
    left_out: dict[str, str] = {}
    for index, item in enumerate(loaded):
        try:
            reason = None if item.unlabelled else scorer.check(item, options)
            if item.metadata:
                _check_metadata(settings, item)
            if not (reason or item.unlabelled):
                _check_target(scorer, item, options)
        except InputError as error:
            line = find_line(path, index, settings.input_field)
            raise InputError(f"{path}:{line}: {error}") from None
        if reason:
            left_out[item.id] = reason
    return left_out


def _check_target(scorer: Scorer, item: Item, options: Options) -> None:
    """Raises InputError if the scorer does not score the target itself as right."""
    result = scorer.target_score(item, options)
    if result is None or result.strict == 1:
        return
    score = "no score" if result.strict is None else f"{result.strict:g}"
    rule = f" ({result.rule})" if result.rule else ""
    raise InputError(
        f"item {item.id!r}: scorer {scorer.name!r} gives its own target "
        f"{format_excerpt(written(item.target), EXCERPT)!r} {score}{rule} instead of 1, so no "
        "answer can be right; correct the target, or choose another scorer"
    )


def _check_metadata(settings: SuiteSettings, item: Item) -> None:
    """Checks the metadata that a run reads later. Raises InputError."""
    merge_fields(settings.request, item)
    conversation(item)
    _check_class(settings, item)


def _check_class(settings: SuiteSettings, item: Item) -> None:
    """Raises InputError if the item's capture has another data class than the suite."""
    provenance = item.metadata.get("provenance")
    item_class = provenance.get("data_class") if isinstance(provenance, Mapping) else None
    if item_class and item_class != settings.data_class:
        raise InputError(
            f"item {item.id!r} was captured as {item_class} data: set `data_class: "
            f"{item_class}` of suite {settings.name!r}"
        )


def _check_draw(settings: SuiteSettings, scorer: Scorer) -> None:
    """Raises ConfigError for a comparison with answers that no draw has registered."""
    options = settings.scorer_options
    missing = " and no ".join(name for name in ("answers_of", "draw") if not options.get(name))
    if scorer.name == PREFERENCE.name and missing:
        raise ConfigError(
            f"suite {settings.name!r}: scorer {scorer.name!r} has no {missing} in "
            "scorer_options: `swapproof suite draw` writes such a suite"
        )


def _check_judge(settings: SuiteSettings, scorer: Scorer) -> None:
    """Raises ConfigError if the scorer needs a judge that the suite lacks, or does not use the
    suite's judge.
    """
    if (scorer.judged is None) != (settings.judge is None):
        missing_judge = f"scorer {scorer.name!r} needs a `judge` with a `target`"
        unused_judge = f"scorer {scorer.name!r} uses no judge; remove `judge`"
        raise ConfigError(
            f"suite {settings.name!r}: {unused_judge if settings.judge else missing_judge}"
        )
    if settings.judge is not None and settings.judge.references is not None:
        load_references(settings.judge.references)


def _build_judge_pin(settings: SuiteSettings) -> str:
    """Returns the judge's target and a hash of its settings: `+judge:t_3f…/9a1b…`."""
    judge = settings.judge
    if judge is None:
        return ""
    references = file_sha256(judge.references) if judge.references else ""
    answer_terms = [judge.attempts, judge.max_output_tokens, references]
    agreement_terms = [judge.min_agreement, judge.levels] if references else []
    return f"{JUDGE_SEPARATOR}{judge.target.id}/{digest([answer_terms, agreement_terms])[:8]}"


def _hash_prompt(settings: SuiteSettings, groups: ItemGroups) -> str:
    """Hashes the settings, and the clusters, that decide how a run asks and counts an item."""
    return digest(
        [
            settings.template,
            settings.system,
            settings.max_output_tokens,
            settings.temperature,
            settings.input_field,
            settings.target_field,
            *([dict(settings.request)] if settings.request else []),
            *grouping(settings),
            *([dict(groups.clusters)] if groups.clusters else []),
        ]
    )


def grouping(settings: SuiteSettings) -> Sequence[object]:
    """Returns the pin's grouping settings; empty without any, so that older pins stay valid."""
    grouping_settings: dict[str, object] = {}
    if settings.cluster:
        grouping_settings["cluster"] = settings.cluster
    if settings.slices:
        grouping_settings["slices"] = list(settings.slices)
    return [grouping_settings] if grouping_settings else []


def task_file(settings: SuiteSettings) -> tuple[Path, str]:
    """Returns the file of a task suite, and the task's name; empty for the file's only task."""
    task = settings.task or ""
    file, _, name = task.rpartition(":") if task.count(".py:") else (task, "", "")
    return Path(file), name
