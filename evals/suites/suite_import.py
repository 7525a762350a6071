"""A labelled file becomes a suite: its data, its line in the manifest, its settings."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from evals.suites.labelled_answers import LabelledItems, read_labelled
from evals.suites.suite import load_suite
from harness.domain.errors import Conflict, InputError
from harness.domain.settings import SuiteSettings

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
FOLDER, MANIFEST = "suites", "manifest.toml"


@dataclass(frozen=True)
class ImportedSuite:
    """items: that the scorer can judge. settings: as the configuration is to have them."""

    suite: str
    items: int
    unlabelled: int
    left_out: int
    sha256: str
    data: Path
    manifest: Path
    settings: Mapping[str, object]


def import_labelled(
    file: Path,
    wished: SuiteSettings,
    *,
    base: Path,
    actor: str,
    now: datetime,
    replace_: bool,
) -> ImportedSuite:
    """Write `suites/NAME.jsonl` and the manifest beside it, below `base`.

    wished: without path and data class. Nothing is left behind when it is refused.
    Raises InputError as `file:line: …`, Conflict when there is such a suite, and as
    `load_suite` what the scorer says of the labels.
    """
    name = wished.name
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name of a suite: use a-z, 0-9, - and _")
    found = read_labelled(file)
    folder = base / FOLDER
    data = folder / f"{name}.jsonl"
    if data.exists() and not replace_:
        raise Conflict(f"{data} is there already: take another name, or --replace")
    before = data.read_bytes() if data.exists() else None
    folder.mkdir(parents=True, exist_ok=True)
    data.write_text(found.text, encoding="utf-8")
    try:
        suite = load_suite(replace(wished, path=data, data_class=found.data_class))
        manifest = folder / MANIFEST
        entries = [each for each in _entries(manifest) if each.get("name") != name]
        entries.append(_entry(found, name, data, actor, now))
        manifest.write_text(_toml(entries), encoding="utf-8")
    except BaseException:
        _restore(data, before)
        raise
    return ImportedSuite(
        suite=name,
        items=len(suite.items),
        unlabelled=found.unlabelled,
        left_out=len(suite.left_out),
        sha256=suite.pin.data_sha256,
        data=data,
        manifest=manifest,
        settings=_settings(wished, found.data_class),
    )


def _restore(data: Path, before: bytes | None) -> None:
    if before is None:
        data.unlink()
    else:
        data.write_bytes(before)


def _settings(wished: SuiteSettings, data_class: str) -> dict[str, object]:
    """As the file has them: what is not the default."""
    given: dict[str, object] = {
        "path": f"{FOLDER}/{wished.name}.jsonl",
        "scorer": wished.scorer,
    }
    if wished.scorer_options:
        given["scorer_options"] = dict(wished.scorer_options)
    if wished.max_output_tokens != SuiteSettings("").max_output_tokens:
        given["max_output_tokens"] = wished.max_output_tokens
    if data_class:
        given["data_class"] = data_class
    return given


def _entry(
    found: LabelledItems, name: str, data: Path, actor: str, now: datetime
) -> dict[str, object]:
    return {
        "name": name,
        "file": data.name,
        "items": len(found.items),
        "sha256": sha256(data.read_bytes()).hexdigest(),
        "origin": "captured from production",
        **found.origin,
        "imported_at": now.isoformat(timespec="seconds"),
        "imported_by": actor,
    }


def _entries(manifest: Path) -> list[dict[str, object]]:
    if not manifest.exists():
        return []
    try:
        listed = tomllib.loads(manifest.read_text(encoding="utf-8")).get("dataset", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{manifest}: is not TOML: {error}") from None
    return [dict(each) for each in listed]


def _toml(entries: list[dict[str, object]]) -> str:
    """JSON's texts, numbers and lists of them are TOML's, too."""
    lines = ["# Written by `swapgate eval import`."]
    for entry in entries:
        lines += ["", "[[dataset]]"]
        # Not as it is: DEL may stand in JSON's texts, and not in TOML's.
        lines += [f"{name} = {json.dumps(value)}" for name, value in entry.items()]
    return "\n".join(lines).replace("\x7f", "\\u007F") + "\n"
