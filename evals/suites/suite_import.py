"""Writes labelled captured requests or records of a data set as suites.

If an import fails, it leaves no file behind. The manifest beside the data names the
origin of the items and counts the omitted ones. The caller writes the configuration
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
    check_fields,
    check_messages,
    find_input_text,
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


def read_labelled(path: Path, draft: SuiteSettings) -> SuiteItems:
    """Reads a file of `swapproof capture export` in which people filled in `label`.

    A line without a label becomes an item whose scores are missing. Without it, the suite would
    consist of the requests that a person chose by their answers. A label with a free text of
    the production answer counts only for a judge (`accepts_approved`).

    Raises InputError as `file:line: field: reason` at the first fault.
    """
    items: list[Mapping[str, Any]] = []
    line_by_id: dict[str, int] = {}
    targets: dict[str, tuple[object, str]] = {}
    for number, record in json_lines(path):
        place = f"{path}:{number}"
        id_ = record.get("id")
        if not isinstance(id_, str) or not id_:
            raise InputError(f"{place}: field 'id': missing; keep the export's value")
        if id_ in line_by_id:
            raise InputError(
                f"{place}: field 'id': line {line_by_id[id_]} has the same id {id_!r}"
            )
        line_by_id[id_] = number
        items.append(_build_item(record, place, draft.scorer))
        refuse_second_target(targets, read_item(items[-1], place), place)
    caller_by_id = {item["id"]: _find_caller(item) for item in items}
    drawn_ids = draw_per_caller(caller_by_id)
    items = [item for item in items if item["id"] in drawn_ids]
    unlabelled = sum(item["target"] is None for item in items)
    if unlabelled == len(items):
        raise InputError(f"{path}: no line has a label; fill in `label` and import it again")
    settings = replace(draft, data_class=_require_one_data_class(items, path))
    origin = {**_summarize_origin(items), "of_frequent_callers": len(caller_by_id) - len(items)}
    if written_count := _sum_count(
        (item["metadata"]["provenance"] for item in items), "written"
    ):
        origin["deleted"] = max(0, written_count - len(caller_by_id))
    return SuiteItems(settings, items, unlabelled, origin)


def _find_caller(item: Mapping[str, Any]) -> str:
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
    new_notes: list[ConversionNote] = []
    new_suites: list[SuiteItems] = []
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
                names = sorted({key for item in suite.items for key in item["metadata"]})
                raise InputError(
                    f"{file}: no item has the metadata {name!r}; --slice can name "
                    f"{', '.join(names) or 'nothing'}"
                )
            if missing:
                text = f"{missing} items without it are the slice `{_NO_VALUE}`"
                key = f"metadata.{name}"
                new_notes.append(
                    ConversionNote(str(file), key, ConversionOutcome.CHANGED, text)
                )
        new_suites.append(replace(suite, items=items))
    return new_suites, [*notes, *new_notes]


def _build_item(record: Mapping[str, Any], place: str, scorer: str) -> dict[str, Any]:
    """Builds an item from a line of the export. Its target is None if the line has no label."""
    messages = check_messages(record.get("messages"), f"{place}: field 'messages'")
    fields = {name: record[name] for name in FIELDS if record.get(name) is not None}
    check_fields(fields, place)
    tags = record.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise InputError(f"{place}: field 'tags': must be a list of texts")
    question = find_input_text(messages)
    if not question.strip():
        raise InputError(f"{place}: field 'messages': the messages have no text")
    label = record.get("label")
    if isinstance(label, str) and not label.strip():
        label = None
    provenance = _check_provenance(record, place, labelled=label is not None)
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


def _check_provenance(
    record: Mapping[str, Any],
    place: str,
    *,
    labelled: bool,
) -> Mapping[str, object]:
    """Checks the origin of a captured request and the author of its label. Raises InputError.

    A label needs an author, so that a reader of the suite can ask the person.
    """
    provenance = record.get("provenance")
    if not isinstance(provenance, dict):
        raise InputError(f"{place}: field 'provenance': missing; keep the export's value")
    for name, type_ in PROVENANCE.items():
        if type(provenance.get(name)) is not type_:
            raise InputError(f"{place}: field 'provenance.{name}': missing, or of another type")
    _parse_time(provenance["at"], f"{place}: field 'provenance.at'")
    author = record.get("label_author") or ""
    at = record.get("labelled_at") or ""
    if not isinstance(author, str) or not isinstance(at, str):
        raise InputError(f"{place}: fields 'label_author', 'labelled_at': must be texts")
    if labelled and not author.strip():
        raise InputError(f"{place}: field 'label_author': missing; add the labeller's name")
    if at:
        _parse_time(at, f"{place}: field 'labelled_at'")
    return {
        **provenance,
        "label_author": author,
        "labelled_at": at,
    }


def _parse_time(text: str, place: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{place}: {text!r} is not a time, such as 2026-11-20T14:00:00Z"
        ) from None


def _require_one_data_class(items: Sequence[Mapping[str, Any]], path: Path) -> str:
    """Returns the data class of all items. Raises InputError if there are several."""
    data_classes = {item["metadata"]["provenance"]["data_class"] for item in items}
    if len(data_classes) > 1:
        raise InputError(
            f"{path}: data of several classes ({', '.join(sorted(map(repr, data_classes)))}): "
            "import each class on its own, because different providers may see them"
        )
    return str(data_classes.pop())


def _summarize_origin(items: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Summarizes the items' provenance for the manifest."""
    provenances = [item["metadata"]["provenance"] for item in items]
    times = sorted(item["at"] for item in provenances)
    label_times = sorted(item["labelled_at"] for item in provenances if item["labelled_at"])
    return {
        "origin": "captured from production",
        "routes": sorted({item["route"] for item in provenances}),
        "captured_from": times[0],
        "captured_until": times[-1],
        "share_bps": sorted({item["share_bps"] for item in provenances}),
        "rules_sha256": sorted({item["rules_sha256"] for item in provenances}),
        **_summarize_draw(provenances),
        "data_class": provenances[0]["data_class"],
        "label_authors": sorted({item["label_author"] for item in provenances} - {""}),
        "labelled_from": label_times[0] if label_times else "",
        "labelled_until": label_times[-1] if label_times else "",
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


def _sum_count(provenance: Iterable[Mapping[str, Any]], count: str) -> int:
    """Sums a count of the exports that the items came from; 0 if they have none. A file may
    join several exports. The sum counts each export, so that deletions from one export stay
    visible.
    """
    samples = [entry["sample"] for entry in provenance if isinstance(entry.get("sample"), dict)]
    exports = {canonical_json(sample): sample for sample in samples}
    return sum(int(sample.get(count) or 0) for sample in exports.values())


def _summarize_draw(provenance: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    counts = {name: _sum_count(provenance, name) for name in ("drawn", "too_large")}
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
    imported: list[ImportedSuite] = []
    with ExitStack() as stack:
        for suite in found:
            name = suite.settings.name
            if not NAME.fullmatch(name):
                raise InputError(f"{name!r} is not a suite's name: use a-z, 0-9, - and _")
            data = base / FOLDER / f"{name}{suite.file.suffix if suite.file else '.jsonl'}"
            if data.exists() and not replace_:
                raise Conflict(f"{data} exists: choose another name, or add --replace")
            stack.enter_context(writing(data, suite.content))
            imported.append(
                _describe_import(replace(suite.settings, path=data), suite.unlabelled)
            )
            if suite.origin:
                manifest = imported[-1].manifest
                other_entries = [
                    old_entry
                    for old_entry in manifest_entries(manifest)
                    if old_entry.get("name") != name
                ]
                entry = _build_entry(suite, imported[-1], actor, now)
                stack.enter_context(writing(manifest, _toml([*other_entries, entry]).encode()))
        configure(imported)
    return imported


@contextmanager
def writing(file: Path, content: bytes) -> Iterator[None]:
    """Replaces a file in one step, and restores its old content if the block fails."""
    old_content = file.read_bytes() if file.exists() else None
    file.parent.mkdir(parents=True, exist_ok=True)
    _write_whole(file, content)
    try:
        yield
    except BaseException:
        if old_content is None:
            file.unlink()
        else:
            _write_whole(file, old_content)
        raise


def _describe_import(settings: SuiteSettings, unlabelled: int) -> ImportedSuite:
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
        settings=_list_changed_settings(settings, data),
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


def _list_changed_settings(settings: SuiteSettings, data: Path) -> dict[str, object]:
    """Returns the settings that differ from the defaults, as the configuration has them."""
    changed: dict[str, object] = {
        "path": f"{FOLDER}/{data.name}",
        "scorer": settings.scorer,
    }
    if settings.title:
        changed["title"] = settings.title
    if settings.scorer_options:
        changed["scorer_options"] = dict(settings.scorer_options)
    if settings.max_output_tokens != SuiteSettings("").max_output_tokens:
        changed["max_output_tokens"] = settings.max_output_tokens
    if settings.judge is not None:
        changed["judge"] = _write_judge(settings.judge)
    if settings.data_class:
        changed["data_class"] = settings.data_class
    if settings.cluster:
        changed["cluster"] = settings.cluster
    if settings.slices:
        changed["slices"] = list(settings.slices)
    return changed


def _write_judge(judge: JudgeSettings) -> dict[str, object]:
    limit = {} if judge.max_cost_usd is None else {"max_cost_usd": judge.max_cost_usd}
    return {"target": judge.target.name, **limit}


def _build_entry(
    items: SuiteItems,
    imported: ImportedSuite,
    actor: str,
    now: datetime,
) -> dict[str, object]:
    """Builds the suite's entry in the manifest."""
    return {
        "name": imported.suite,
        "file": imported.data.name,
        "items": len(items.items),
        "sha256": imported.sha256,
        "without_label": imported.unlabelled,
        "unscorable": imported.left_out,
        **items.origin,
        "imported_at": now.isoformat(timespec="seconds"),
        "imported_by": actor,
    }


def _toml(entries: list[dict[str, object]]) -> str:
    """Writes the values as JSON: TOML reads JSON's strings, numbers, and lists."""
    lines = ["# Written by Swapproof."]
    for entry in entries:
        lines += ["", "[[dataset]]"]
        lines += [f"{name} = {write_value(value)}" for name, value in entry.items()]
    return "\n".join(lines) + "\n"
