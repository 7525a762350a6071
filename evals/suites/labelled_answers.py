"""A file of captured requests that people have labelled becomes a suite's data (F9)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from evals.suites.conversation import asked_text, check_messages
from evals.suites.items import json_lines
from evals.suites.request_fields import FIELDS, check_fields
from harness.domain.errors import InputError

PROVENANCE: Final[Mapping[str, type]] = {
    "route": str,
    "at": str,
    "data_class": str,
    "share_bps": int,
    "rules_sha256": str,
}


@dataclass(frozen=True)
class LabelledItems:
    """items: lines of a data file. unlabelled: lines that nobody has labelled, left out.

    data_class: one for all. origin: where it all comes from, for the manifest.
    """

    items: Sequence[Mapping[str, Any]]
    unlabelled: int
    data_class: str
    origin: Mapping[str, object]

    @property
    def text(self) -> str:
        return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in self.items)


def read_labelled(path: Path) -> LabelledItems:
    """What `swapgate capture export` wrote, with `label` filled in.

    Raises InputError as `file:line: field: what is wrong` at the first fault.
    """
    items: list[Mapping[str, Any]] = []
    seen: dict[str, int] = {}
    unlabelled = 0
    for number, record in json_lines(path):
        place = f"{path}:{number}"
        id_ = record.get("id")
        if not isinstance(id_, str) or not id_:
            raise InputError(f"{place}: field 'id': missing; keep what the export wrote")
        if id_ in seen:
            raise InputError(f"{place}: field 'id': {id_!r} is that of line {seen[id_]} too")
        seen[id_] = number
        item = _item(record, place)
        if item["target"] is None:
            unlabelled += 1
        else:
            items.append(item)
    if not items:
        raise InputError(f"{path}: no line has a label; fill in `label` and import it again")
    return LabelledItems(items, unlabelled, _data_class(items, path), _origin(items))


def _item(record: Mapping[str, Any], place: str) -> dict[str, Any]:
    messages = check_messages(record.get("messages"), f"{place}: field 'messages'")
    fields = {name: record[name] for name in FIELDS if record.get(name) is not None}
    check_fields(fields, place)
    tags = record.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise InputError(f"{place}: field 'tags': must be a list of texts")
    asked = asked_text(messages)
    if not asked.strip():
        raise InputError(f"{place}: field 'messages': nothing is asked in it")
    label = record.get("label")
    if isinstance(label, str) and not label.strip():
        label = None
    return {
        "id": record["id"],
        "input": asked,
        "target": label,
        "metadata": {
            "messages": list(messages),
            **fields,
            "tags": tags,
            "production": {"answer": record.get("answer"), "model": record.get("model")},
            "provenance": _provenance(record, place, labelled=label is not None),
        },
    }


def _provenance(
    record: Mapping[str, Any], place: str, *, labelled: bool
) -> Mapping[str, object]:
    given = record.get("provenance")
    if not isinstance(given, dict):
        raise InputError(f"{place}: field 'provenance': missing; keep what the export wrote")
    for name, type_ in PROVENANCE.items():
        if type(given.get(name)) is not type_:
            raise InputError(f"{place}: field 'provenance.{name}': missing, or of another type")
    _moment(given["at"], f"{place}: field 'provenance.at'")
    author, at = record.get("label_author") or "", record.get("labelled_at") or ""
    if not isinstance(author, str) or not isinstance(at, str):
        raise InputError(f"{place}: fields 'label_author', 'labelled_at': must be texts")
    if labelled and not author.strip():
        raise InputError(f"{place}: field 'label_author': who labelled it? Write a name")
    if at:
        _moment(at, f"{place}: field 'labelled_at'")
    return {**given, "label_author": author, "labelled_at": at}


def _moment(text: str, place: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{place}: {text!r} is no time, such as 2026-11-20T14:00:00Z"
        ) from None


def _data_class(items: Sequence[Mapping[str, Any]], path: Path) -> str:
    found = {each["metadata"]["provenance"]["data_class"] for each in items}
    if len(found) > 1:
        raise InputError(
            f"{path}: data of several classes ({', '.join(sorted(map(repr, found)))}): import "
            "each on its own, since each may be seen by others"
        )
    return str(found.pop())


def _origin(items: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    all_ = [each["metadata"]["provenance"] for each in items]
    times = sorted(each["at"] for each in all_)
    labelled = sorted(each["labelled_at"] for each in all_ if each["labelled_at"])
    return {
        "routes": sorted({each["route"] for each in all_}),
        "captured_from": times[0],
        "captured_until": times[-1],
        "share_bps": sorted({each["share_bps"] for each in all_}),
        "rules_sha256": sorted({each["rules_sha256"] for each in all_}),
        "data_class": all_[0]["data_class"],
        "label_authors": sorted({each["label_author"] for each in all_}),
        "labelled_from": labelled[0] if labelled else "",
        "labelled_until": labelled[-1] if labelled else "",
    }
