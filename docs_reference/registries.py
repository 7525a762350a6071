"""Writes the tables of the reference pages from their registries: metrics, errors with their
exit codes, places that hold content, and the configuration's keys from its JSON schema.
`list_keys` has all keys but policies; `list_policy_keys` has these, `list_policies` what the
shipped ones set.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os.path import relpath
from typing import Any, Final, NamedTuple

import yaml

from docs_reference.stored_content import (
    COLUMNS,
    FILES,
    USERS,
    ContentColumn,
)
from harness.app.configuration.configuration import json_schema
from harness.frame import errors, package_data
from harness.frame.errors import SwapgateError
from harness.frame.metrics import (
    CONTROL_METRICS,
    PROCESS_COUNTERS,
    ROUTER_METRICS,
    MetricSpec,
)
from harness.operations.captures import REMAINING_COPIES

PLACES: Final = ("Places, and what they hold", "Ends", "Deletion of a user")
ERROR_LINE: Final = re.compile(r"^[│├└─ ]+(\w+) +(.+)$", re.MULTILINE)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Writes a table; a cell is Markdown on one line."""
    lines = [_row(heads), _row(["---"] * len(heads))]
    return "\n".join([*lines, *(_row(row) for row in rows)])


def link(page: str, text: str) -> str:
    """Writes a link from a page in docs/reference to another, named as `swapgate docs open`
    takes it; `#section` may follow. Raises NotFound.
    """
    name, mark, section = page.partition("#")
    markdown = package_data.find_page(name).markdown
    return f"[{text}]({relpath(markdown, package_data.DOCS / 'reference')}{mark}{section})"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def _row(cells: Sequence[str]) -> str:
    escaped = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def metric_tables() -> dict[str, str]:
    """Writes the metrics of each kind of process that has some."""
    kinds = {
        "router": ROUTER_METRICS,
        "control": CONTROL_METRICS,
    }
    tables = {
        name: "\n".join(
            f"- {code} ({'; '.join(filter(None, (kind, labels)))}): {meaning}"
            for code, kind, labels, meaning in _metric_rows(metrics)
        )
        for name, metrics in kinds.items()
    }
    return tables | {"processes": "\n".join(_by_outcome(_metric_rows(PROCESS_COUNTERS)))}


def _by_outcome(counters: Iterable[tuple[str, str, str, str]]) -> Iterator[str]:
    """Writes a line for each counter, and one line for all that count the same outcome by its
    reason.
    """
    reasons: dict[str, list[str]] = {}
    for name, _, _, meaning in counters:
        outcome, since, reason = meaning.partition(", since ")
        if since:
            reasons.setdefault(outcome, []).append(f"{name} ({reason})")
        else:
            yield f"- {name}: {meaning}"
    for outcome, named in reasons.items():
        yield f"- {outcome}: {', '.join(named)}"


def _metric_rows(metrics: Mapping[str, MetricSpec]) -> Iterable[tuple[str, str, str, str]]:
    for name, spec in metrics.items():
        stored = f"{name}_total" if spec.kind == "counter" else name
        yield code(stored), spec.kind, ", ".join(spec.labels), spec.meaning


def content_tables() -> dict[str, str]:
    """Writes every place with content, and what a deletion does not reach."""
    files = [(file.place, file.holds, file.ends, file.deletion) for file in FILES]
    return {
        "content": table(PLACES, _by_fate(_places(COLUMNS))),
        "users": table(PLACES, _by_fate(_places(USERS))),
        "files": table(PLACES, _by_fate(files)),
        "beyond": "\n".join(f"- {text[0].upper()}{text[1:]}." for text in REMAINING_COPIES),
    }


def _by_fate(rows: Iterable[tuple[str, str, str, str]]) -> Iterator[tuple[str, str, str]]:
    """A row for all places whose content ends and is deleted alike."""
    alike: dict[tuple[str, str], list[str]] = {}
    for place, holds, ends, deletion in rows:
        alike.setdefault((ends, deletion), []).append(f"{place}: {holds}")
    for (ends, deletion), places in alike.items():
        yield "; ".join(places), ends, deletion


def _places(columns: Iterable[ContentColumn]) -> Iterator[tuple[str, str, str, str]]:
    for column in columns:
        place = code(f"{column.table}.{column.column}")
        yield place, column.holds, column.ends, column.deletion


def error_table() -> str:
    """Writes the errors in the order of the tree in their module's docstring."""
    classes = {cls.__name__: cls for cls in _below(SwapgateError)}
    lines = []
    for name, meaning in ERROR_LINE.findall(errors.__doc__ or ""):
        cls = classes[name]
        retryable = ", retryable" if cls.retryable else ""
        lines.append(f"- {code(name)} ({cls.exit_code}{retryable}): {meaning}")
    return "\n".join(lines)


def _below(cls: type[SwapgateError]) -> Iterator[type[SwapgateError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _below(child)


Schema = Mapping[str, Any]
PAGE_LINK: Final = re.compile(r"\bdocs/((?:[\w-]+/)*[\w-]+)\.md\b")
SECTION_LINK: Final = re.compile(r"\bstatistics\.md §([\d.]*\d)")


class Key(NamedTuple):
    path: str
    kind: str
    default: str
    meaning: str

    @property
    def name(self) -> str:
        return self.path.strip("`")

    @property
    def parent(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]


def list_keys() -> str:
    """Writes the keys by section, those without a section first."""
    schema = json_schema()
    properties: Schema = schema["properties"]  # type: ignore[assignment]
    keys = [
        key
        for name, field in properties.items()
        if name != "policies"
        for key in _keys(name, field, schema, _MISSING)
        if key.name != name or not key.kind.startswith(("mapping to mappings", "list of m"))
    ]
    sections: dict[str, list[Key]] = {}
    for key in _shortened(keys):
        sections.setdefault(re.split(r"[.\[]", key.name)[0], []).append(key)
    plain = [key for section in sections.values() if len(section) == 1 for key in section]
    parts = []
    for name, field in properties.items():
        if name == "policies":
            parts += ["## `policies`", "See [policies](policies.md)."]
        elif len(sections[name]) > 1:
            parts += [
                f"## `{name}`",
                _meaning(field),
                _listed(sections[name]),
            ]
    return _joined("## Keys without a section", _listed(plain), *parts)


def _listed(keys: Iterable[Key]) -> str:
    return "\n".join(
        f"- {key.path} ({'; '.join(filter(None, (key.kind, key.default)))}): {key.meaning}"
        for key in keys
    )


def _shortened(keys: Sequence[Key]) -> list[Key]:
    """The keys, with one row for those below one parent that differ in their name alone, and
    for a mapping whose keys another mapping before it has as well.
    """
    same: dict[tuple[str, ...], list[Key]] = {}
    for key in keys:
        same.setdefault((key.parent, key.kind, key.default, key.meaning), []).append(key)
    rows = []
    for group in same.values():
        more = "".join(f", `.{key.leaf}`" for key in group[1:])
        rows.append(group[0]._replace(path=group[0].path + more))
    return _without_copies(rows)


def _without_copies(keys: Sequence[Key]) -> list[Key]:
    """The keys; a mapping's that are those of an earlier mapping become one row."""
    parents = list(dict.fromkeys(key.parent for key in keys))
    below = {parent: _keys_below(parent, keys) for parent in parents}
    copies: dict[str, str] = {}
    for at, parent in enumerate(parents):
        for earlier in parents[:at]:
            if len(below[earlier]) >= LEAST_COPY and below[earlier] <= below[parent]:
                copies.setdefault(parent, earlier)
    rows: list[Key] = []
    for key in keys:
        holder = next(
            (copy for copy in copies if key.name.startswith(f"{copy}.")),
            None,
        )
        relative = key._replace(path=key.name.removeprefix(f"{holder}."))
        if holder is None or relative not in below[copies[holder]]:
            rows.append(key)
        elif not any(row.name == f"{holder}.*" for row in rows):
            rows.append(
                Key(
                    code(f"{holder}.*"),
                    "mapping",
                    "",
                    f"As `{copies[holder]}.*`.",
                )
            )
    return rows


def _keys_below(parent: str, keys: Sequence[Key]) -> set[Key]:
    """The keys below a mapping, with their paths from there on."""
    return {
        key._replace(path=key.name.removeprefix(f"{parent}."))
        for key in keys
        if key.name.startswith(f"{parent}.")
    }


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def list_policies(shipped: str) -> str:
    """Writes what the shipped policies set. shipped: the text of the default configuration."""
    policies: Mapping[str, object] = yaml.safe_load(shipped)["policies"]
    parts = []
    for name, policy in policies.items():
        if name == "demo":  # for `make demo` alone
            continue
        text = yaml.safe_dump(
            policy,
            sort_keys=False,
            default_flow_style=None,
            width=88,
        )
        comment = _comment_before(name, shipped)
        parts += [f"### `{name}`", comment, f"```yaml\n{text}```"]
    return _joined(*parts)


def list_policy_keys() -> str:
    """Writes the keys of a policy, by what they are about."""
    schema = json_schema()
    entry = schema["$defs"]["PolicyFields"]  # type: ignore[index]
    groups: dict[str, list[Key]] = {}
    for name, field in entry["properties"].items():
        for key in _keys(name, field, schema, _MISSING):
            groups.setdefault(_group(key.path.strip("`")), []).append(key)
    titled = ((f"### {group}", _listed(_shortened(keys))) for group, keys in groups.items())
    return _joined(*(part for parts in titled for part in parts))


def _group(path: str) -> str:
    first, dot, rest = path.partition(".")
    if not dot:
        return "Approval"
    if first == "gate":
        return "The gate"
    named = re.split(r"[.\[]", rest)[0]
    titles = {
        "steps": "Steps of the canary",
        "guardrails": "Guardrails of the canary",
        "judge": "The judge of the canary",
        "peak": "Peak hours",
    }
    return titles.get(named, "The canary")


def _comment_before(name: str, text: str) -> str:
    """The comment above the policy in the shipped file."""
    found = re.search(rf"((?:^  # .*\n)+)  {re.escape(name)}:$", text, re.MULTILINE)
    return " ".join(line.strip("# ") for line in found[1].splitlines()) if found else ""


def _keys(
    path: str,
    field: Schema,
    root: Schema,
    given: object,
    *,
    required: bool = False,
) -> Iterator[Key]:
    """Yields the key, or those below it. given: its value in the default of what holds it."""
    default = field.get("default", _MISSING) if given is _MISSING else given
    inner, below = _mapping_of(field, root)
    if inner is None or below or "anyOf" in field:
        yield _key(path, field, root, default, required=required)
        default = _MISSING
    if inner is None:
        return
    values = default if isinstance(default, Mapping) else {}
    for name, part in inner["properties"].items():
        yield from _keys(
            f"{path}{below}.{name}",
            part,
            root,
            values.get(name, _MISSING),
            required=name in inner.get("required", ()),
        )


def _mapping_of(field: Schema, root: Schema) -> tuple[Schema | None, str]:
    """The mapping of known keys that a field leads to, and what its path gets: `[]` in a list,
    `.NAME` where people give the names.
    """
    for option in _options(field, root):
        if "properties" in option:
            return option, ""
        for key, suffix in (
            ("items", "[]"),
            ("additionalProperties", ".NAME"),
        ):
            if isinstance(option.get(key), Mapping):
                inner, further = _mapping_of(option[key], root)
                if inner is not None:
                    return inner, suffix + further
    return None, ""


def _options(field: Schema, root: Schema) -> list[Schema]:
    """What a field may be, without references and without null."""
    if "anyOf" in field:
        return [kind for option in field["anyOf"] for kind in _options(option, root)]
    if "$ref" in field:
        return _options(root["$defs"][field["$ref"].rpartition("/")[2]], root)
    return [] if field.get("type") == "null" else [field]


def _key(
    path: str,
    field: Schema,
    root: Schema,
    default: object,
    *,
    required: bool,
) -> Key:
    kind = " or ".join(dict.fromkeys(_type(option, root) for option in _options(field, root)))
    if field.get("maximum", TOLD + 1) <= TOLD:
        kind += f", {field['x-range']}"
    unit = field.get("x-unit", "")
    if unit:  # it says that the value is a number
        plain = NUMBER.sub("", kind)
        kind = f"{kind}, {unit}" if plain == kind else f"{plain} {unit}".strip()
    elif kind == "boolean" and default is not _MISSING:
        kind = ""
    return Key(
        code(path),
        kind,
        _default(
            "off" if default is False and code("off") in kind else default,
            required=required,
        ),
        _meaning(field),
    )


def _type(option: Schema, root: Schema) -> str:
    if "enum" in option:
        values = [code(str(value)) for value in option["enum"]]
        return ", ".join(values) if len(values) <= MANY else "string"
    if "const" in option:
        return code("off" if option["const"] is False else str(option["const"]))
    match option.get("type"):
        case "array":
            return f"list of {_plural(option.get('items', {}), root)}"
        case "object" if "properties" not in option:
            value_option = option.get("additionalProperties")
            return (
                f"mapping to {_plural(value_option, root)}"
                if isinstance(value_option, Mapping)
                else "mapping"
            )
        case "object":
            return "mapping"
        case kind:
            return str(kind or "any value")


def _plural(field: Schema, root: Schema) -> str:
    names = dict.fromkeys(_type(option, root) for option in _options(field, root))
    plain = {"any value": "anything"}
    words = [
        plain.get(name, name if " " in name or "`" in name else f"{name}s") for name in names
    ]
    return " or ".join(words) or "anything"


def _default(value: object, *, required: bool) -> str:
    if value is _MISSING:
        return "required" if required else ""
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = json.dumps(value, ensure_ascii=False)
    return code(text.strip('"')) if len(text) < LONG else f"{len(value)} entries"  # type: ignore[arg-type]


def _meaning(field: Schema) -> str:
    said = str(field.get("description", ""))
    if not said:
        return ""
    linked = PAGE_LINK.sub(_link_to_page, _sentence(said).replace("None", "null"))
    return SECTION_LINK.sub(lambda match: link("statistics", f"statistics, {match[1]}"), linked)


def _link_to_page(match: re.Match[str]) -> str:
    return link(match[1], match[1].rpartition("/")[2])


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", ":")) else f"{text}."


_MISSING: Final = object()
LONG: Final = 60
NUMBER: Final = re.compile(r"^(?:number|integer)(?:, |$)")
# A range that ends above is only a bound of what is sane; an error names it.
TOLD: Final = 1_000
# So many values of one key are listed on a page of their own.
MANY: Final = 20
# So few keys are no copy of another mapping.
LEAST_COPY: Final = 4
