"""Writes labelled captured requests or records of a data set as suites.

If an import fails, it leaves no file behind. The manifest beside the data says where the items
came from and what was left out. The configuration is written by the caller
(`harness.app.suite_import`).
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from evals.suites.conversation import (
    FIELDS,
    asked_text,
    check_fields,
    check_messages,
)
from evals.suites.equal_items import refuse_second_target
from evals.suites.human_labels import (
    NO_EXACT_TARGET,
    WITHOUT_LABEL,
    accepts_approved,
    repeats_answer,
)
from evals.suites.items import UNLABELLED, json_lines, read_item
from evals.suites.suite import MANIFEST, load_suite, manifest_entries
from harness.evals.settings import JudgeSettings, SuiteSettings
from harness.frame.configuration.config_conversion import ConversionNote, ConversionOutcome
from harness.frame.configuration.core_yaml import write_value
from harness.frame.errors import Conflict, InputError
from harness.frame.plain_data import canonical_json
from harness.gate.suite_plan import read_slice
from harness.routing.capture import draw_per_caller

PROVENANCE: Final[Mapping[str, type]] = {
    "route": str,
    "at": str,
    "data_class": str,
    "share_bps": int,
    "rules_sha256": str,
}


@dataclass(frozen=True)
class SuiteItems:
    """The items of a new suite. settings: without path."""

    settings: SuiteSettings
    items: Sequence[Mapping[str, Any]]  # lines of a data file
    unlabelled: int = 0  # number of items without a label
    # The items' origin, for the manifest; empty for no entry there.
    origin: Mapping[str, object] = field(default_factory=dict)
    file: Path | None = None  # a data file to copy, instead of items

    @property
    def content(self) -> bytes:
        """The bytes of the suite's data file."""
        if self.file is not None:
            return self.file.read_bytes()
        text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in self.items)
        return text.encode("utf-8", "backslashreplace")


def read_labelled(path: Path, wished: SuiteSettings) -> SuiteItems:
    """Reads a file of `swapgate capture export` in which people filled in `label`.

    A line without a label becomes an item whose scores are missing: without it, the suite would
    consist of the requests that somebody chose by their answers. A label with a free text of
    the production answer counts only for a judge (`accepts_approved`).

    Raises InputError as `file:line: field: reason` at the first fault.
    """
    items: list[Mapping[str, Any]] = []
    seen: dict[str, int] = {}
    targets: dict[str, tuple[object, str]] = {}
    for number, record in json_lines(path):
        place = f"{path}:{number}"
        id_ = record.get("id")
        if not isinstance(id_, str) or not id_:
            raise InputError(f"{place}: field 'id': missing; keep the export's value")
        if id_ in seen:
            raise InputError(f"{place}: field 'id': line {seen[id_]} has the same id {id_!r}")
        seen[id_] = number
        items.append(_item(record, place, wished.scorer))
        refuse_second_target(targets, read_item(items[-1], place), place)
    of_callers = {item["id"]: _caller(item) for item in items}
    drawn = draw_per_caller(of_callers)
    items = [item for item in items if item["id"] in drawn]
    unlabelled = sum(item["target"] is None for item in items)
    if unlabelled == len(items):
        raise InputError(f"{path}: no line has a label; fill in `label` and import it again")
    settings = replace(wished, data_class=_data_class(items, path))
    origin = {**_origin(items), "of_frequent_callers": len(of_callers) - len(items)}
    if written := _counted((item["metadata"]["provenance"] for item in items), "written"):
        origin["deleted"] = max(0, written - len(of_callers))
    return SuiteItems(settings, items, unlabelled, origin)


def _caller(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["provenance"].get("caller") or "")


_NO_VALUE: Final = "none"  # the slice of items without the field


def with_slices(
    found: Sequence[SuiteItems],
    notes: Sequence[ConversionNote],
    file: Path,
) -> tuple[Sequence[SuiteItems], Sequence[ConversionNote]]:
    """Sets a value for each slice field of the settings in each item; joins several tags.

    Raises InputError for a field that no item has, and for a value that pages cannot show.
    """
    added: list[ConversionNote] = []
    done: list[SuiteItems] = []
    for suite in found:
        items = [{**item, "metadata": {**item["metadata"]}} for item in suite.items]
        for name in suite.settings.slices:
            missing = 0
            for number, item in enumerate(items, start=1):
                value = item["metadata"].get(name)
                if isinstance(value, list):
                    value = ", ".join(map(str, value))
                missing += value in (None, "")
                item["metadata"][name] = _NO_VALUE if value in (None, "") else value
                place = f"{file}: item {item.get('id', number)!r}"
                read_slice(item["metadata"], name, place)
            if missing == len(items):
                known = sorted({key for item in suite.items for key in item["metadata"]})
                raise InputError(
                    f"{file}: no item has the metadata {name!r}; --slice can name "
                    f"{', '.join(known) or 'nothing'}"
                )
            if missing:
                text = f"{missing} items without it are the slice `{_NO_VALUE}`"
                key = f"metadata.{name}"
                added.append(ConversionNote(str(file), key, ConversionOutcome.CHANGED, text))
        done.append(replace(suite, items=items))
    return done, [*notes, *added]


def _item(record: Mapping[str, Any], place: str, scorer: str) -> dict[str, Any]:
    """Builds an item from a line of the export. Its target is None if the line has no label."""
    messages = check_messages(record.get("messages"), f"{place}: field 'messages'")
    fields = {name: record[name] for name in FIELDS if record.get(name) is not None}
    check_fields(fields, place)
    tags = record.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise InputError(f"{place}: field 'tags': must be a list of texts")
    question = asked_text(messages)
    if not question.strip():
        raise InputError(f"{place}: field 'messages': the messages have no text")
    label = record.get("label")
    if isinstance(label, str) and not label.strip():
        label = None
    provenance = _provenance(record, place, labelled=label is not None)
    missing = WITHOUT_LABEL if label is None else ""
    if not accepts_approved(scorer, label) and repeats_answer(label, record.get("answer")):
        label = None
        missing = NO_EXACT_TARGET
    return {
        "id": record["id"],
        "input": question,
        "target": label,
        "metadata": {
            "messages": list(messages),
            **fields,
            "tags": tags,
            **({UNLABELLED: missing} if missing else {}),
            "production": {
                "answer": record.get("answer"),
                "model": record.get("model"),
            },
            "provenance": provenance,
        },
    }


def _provenance(
    record: Mapping[str, Any],
    place: str,
    *,
    labelled: bool,
) -> Mapping[str, object]:
    """Checks where a captured request came from and who labelled it. Raises InputError.

    A label needs an author, so that a reader of the suite can ask the person.
    """
    given = record.get("provenance")
    if not isinstance(given, dict):
        raise InputError(f"{place}: field 'provenance': missing; keep the export's value")
    for name, type_ in PROVENANCE.items():
        if type(given.get(name)) is not type_:
            raise InputError(f"{place}: field 'provenance.{name}': missing, or of another type")
    _moment(given["at"], f"{place}: field 'provenance.at'")
    author = record.get("label_author") or ""
    at = record.get("labelled_at") or ""
    if not isinstance(author, str) or not isinstance(at, str):
        raise InputError(f"{place}: fields 'label_author', 'labelled_at': must be texts")
    if labelled and not author.strip():
        raise InputError(f"{place}: field 'label_author': missing; add the labeller's name")
    if at:
        _moment(at, f"{place}: field 'labelled_at'")
    return {
        **given,
        "label_author": author,
        "labelled_at": at,
    }


def _moment(text: str, place: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{place}: {text!r} is not a time, such as 2026-11-20T14:00:00Z"
        ) from None


def _data_class(items: Sequence[Mapping[str, Any]], path: Path) -> str:
    """Returns the data class of all items. Raises InputError if there are several."""
    found = {item["metadata"]["provenance"]["data_class"] for item in items}
    if len(found) > 1:
        raise InputError(
            f"{path}: data of several classes ({', '.join(sorted(map(repr, found)))}): import "
            "each class on its own, because different providers may see them"
        )
    return str(found.pop())


def _origin(items: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Summarizes the items' provenance for the manifest."""
    all_ = [item["metadata"]["provenance"] for item in items]
    times = sorted(item["at"] for item in all_)
    labelled = sorted(item["labelled_at"] for item in all_ if item["labelled_at"])
    return {
        "origin": "captured from production",
        "routes": sorted({item["route"] for item in all_}),
        "captured_from": times[0],
        "captured_until": times[-1],
        "share_bps": sorted({item["share_bps"] for item in all_}),
        "rules_sha256": sorted({item["rules_sha256"] for item in all_}),
        **_drawn(all_),
        "data_class": all_[0]["data_class"],
        "label_authors": sorted({item["label_author"] for item in all_} - {""}),
        "labelled_from": labelled[0] if labelled else "",
        "labelled_until": labelled[-1] if labelled else "",
    }


def converted(
    tool: str,
    not_taken: int,
    assertions_not_taken: int = 0,
) -> dict[str, object]:
    """Returns the origin of a conversion's items, with the counts that it left out."""
    return {
        "origin": f"converted from {tool}",
        "not_taken": not_taken,
        "assertions_not_taken": assertions_not_taken,
    }


def _counted(provenance: Iterable[Mapping[str, Any]], count: str) -> int:
    """Sums a count of the exports that the items came from; 0 if they have none. A file may
    join several exports, so that a person's deletions from one cannot hide behind another.
    """
    samples = [one["sample"] for one in provenance if isinstance(one.get("sample"), dict)]
    exports = {canonical_json(sample): sample for sample in samples}
    return sum(int(sample.get(count) or 0) for sample in exports.values())


def _drawn(provenance: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    counts = {name: _counted(provenance, name) for name in ("drawn", "too_large")}
    sampled = any(isinstance(item.get("sample"), dict) for item in provenance)
    return dict(counts) if sampled else {}


NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
FOLDER: Final = "suites"


@dataclass(frozen=True)
class ImportedSuite:
    """A written suite. left_out: items that the scorer cannot judge."""

    suite: str
    items: int  # items that the scorer can judge
    unlabelled: int  # items without a label: every model's score is missing
    left_out: int
    sha256: str
    data: Path
    manifest: Path
    settings: Mapping[str, object]  # for the configuration


def import_suites(
    found: Sequence[SuiteItems],
    *,
    base: Path,
    actor: str,
    now: datetime,
    replace_: bool = False,
    configure: Callable[[Sequence[ImportedSuite]], None] = lambda _: None,
) -> Sequence[ImportedSuite]:
    """Writes the suites' files and the manifest below `base`, then calls `configure`.

    A suite's file is `suites/NAME.jsonl`; a copied file keeps its suffix. An error undoes
    all of it. Raises InputError, Conflict for an existing suite, and as `configure`.
    """
    done: list[ImportedSuite] = []
    with ExitStack() as stack:
        for suite in found:
            name = suite.settings.name
            if not NAME.fullmatch(name):
                raise InputError(f"{name!r} is not a suite's name: use a-z, 0-9, - and _")
            data = base / FOLDER / f"{name}{suite.file.suffix if suite.file else '.jsonl'}"
            if data.exists() and not replace_:
                raise Conflict(f"{data} exists: choose another name, or add --replace")
            stack.enter_context(writing(data, suite.content))
            done.append(_imported(replace(suite.settings, path=data), suite.unlabelled))
            if suite.origin:
                manifest = done[-1].manifest
                kept = [old for old in manifest_entries(manifest) if old.get("name") != name]
                entry = _entry(suite, done[-1], actor, now)
                stack.enter_context(writing(manifest, _toml([*kept, entry]).encode()))
        configure(done)
    return done


@contextmanager
def writing(file: Path, content: bytes) -> Iterator[None]:
    """Replaces a file in one step, and restores its old content if the block fails."""
    before = file.read_bytes() if file.exists() else None
    file.parent.mkdir(parents=True, exist_ok=True)
    _write_whole(file, content)
    try:
        yield
    except BaseException:
        if before is None:
            file.unlink()
        else:
            _write_whole(file, before)
        raise


def _imported(settings: SuiteSettings, unlabelled: int) -> ImportedSuite:
    """Loads the written file, as a run would, and describes it. Raises as `load_suite`."""
    suite = load_suite(settings)
    data = settings.path or Path()
    return ImportedSuite(
        suite=settings.name,
        items=len(suite.items) - len(suite.unlabelled),
        unlabelled=unlabelled,
        left_out=len(suite.left_out),
        sha256=suite.pin.data_sha256,
        data=data,
        manifest=data.parent / MANIFEST,
        settings=_settings(settings, data),
    )


def _write_whole(file: Path, content: bytes) -> None:
    new = file.with_name(f".{file.name}.new")
    try:
        new.write_bytes(content)
        if file.exists():
            new.chmod(file.stat().st_mode)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def _settings(wished: SuiteSettings, data: Path) -> dict[str, object]:
    """Returns the settings that differ from the defaults, as the configuration has them."""
    given: dict[str, object] = {
        "path": f"{FOLDER}/{data.name}",
        "scorer": wished.scorer,
    }
    if wished.title:
        given["title"] = wished.title
    if wished.scorer_options:
        given["scorer_options"] = dict(wished.scorer_options)
    if wished.max_output_tokens != SuiteSettings("").max_output_tokens:
        given["max_output_tokens"] = wished.max_output_tokens
    if wished.judge is not None:
        given["judge"] = _judge(wished.judge)
    if wished.data_class:
        given["data_class"] = wished.data_class
    if wished.slices:
        given["slices"] = list(wished.slices)
    return given


def _judge(judge: JudgeSettings) -> dict[str, object]:
    limit = {} if judge.max_cost_usd is None else {"max_cost_usd": judge.max_cost_usd}
    return {"target": judge.target.name, **limit}


def _entry(
    items: SuiteItems,
    done: ImportedSuite,
    actor: str,
    now: datetime,
) -> dict[str, object]:
    """Builds the suite's entry in the manifest."""
    return {
        "name": done.suite,
        "file": done.data.name,
        "items": len(items.items),
        "sha256": done.sha256,
        "without_label": done.unlabelled,
        "unscorable": done.left_out,
        **items.origin,
        "imported_at": now.isoformat(timespec="seconds"),
        "imported_by": actor,
    }


def _toml(entries: list[dict[str, object]]) -> str:
    """Writes the values as JSON: TOML reads JSON's strings, numbers, and lists."""
    lines = ["# Written by `swapgate suite import`."]
    for entry in entries:
        lines += ["", "[[dataset]]"]
        lines += [f"{name} = {write_value(value)}" for name, value in entry.items()]
    return "\n".join(lines) + "\n"
