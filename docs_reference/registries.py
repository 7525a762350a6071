"""Writes the tables of the reference pages from their registries: metrics, errors with their
exit codes, places that hold content, and the configuration's keys from its JSON schema.

`list_keys` writes all keys except policies, `list_policy_keys` writes the keys of a policy, and
`list_policies` the shipped policies.
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
from harness.frame.errors import SwapproofError
from harness.frame.metrics import (
    CONTROL_METRICS,
    PROCESS_COUNTERS,
    ROUTER_METRICS,
    MetricSpec,
)
from harness.operations.captures import REMAINING_COPIES

PLACE_HEADS: Final = ("Places, and what they hold", "Ends", "Deletion of a user")
ERROR_LINE: Final = re.compile(r"^[│├└─ ]+(\w+) +(.+)$", re.MULTILINE)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Writes a table; a cell is Markdown on one line."""
    lines = [_write_row(heads), _write_row(["---"] * len(heads))]
    return "\n".join([*lines, *(_write_row(row) for row in rows)])


def link(page: str, text: str) -> str:
    """Writes a link from a page in docs/reference to another page. Raises NotFound.

    Args:
        page: a name for `swapproof docs open`, with `#section` after it if wanted.
    """
    name, hash_sign, section = page.partition("#")
    markdown = package_data.find_page(name).markdown
    return f"[{text}]({relpath(markdown, package_data.DOCS / 'reference')}{hash_sign}{section})"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def _write_row(cells: Sequence[str]) -> str:
    escaped = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def metric_tables() -> dict[str, str]:
    """Writes the metrics by kind of process."""
    kinds = {
        "router": ROUTER_METRICS,
        "control": CONTROL_METRICS,
    }
    tables = {
        name: "\n".join(
            f"- {code} ({'; '.join(filter(None, (kind, labels)))}): {meaning}"
            for code, kind, labels, meaning in _build_metric_rows(metrics)
        )
        for name, metrics in kinds.items()
    }
    return tables | {
        "processes": "\n".join(_group_by_outcome(_build_metric_rows(PROCESS_COUNTERS)))
    }


def _group_by_outcome(counters: Iterable[tuple[str, str, str, str]]) -> Iterator[str]:
    """Writes a line for each counter. Counters of one outcome with different reasons share a
    line.
    """
    names_by_outcome: dict[str, list[str]] = {}
    for name, _, _, meaning in counters:
        outcome, has_reason, reason = meaning.partition(", since ")
        if has_reason:
            names_by_outcome.setdefault(outcome, []).append(f"{name} ({reason})")
        else:
            yield f"- {name}: {meaning}"
    for outcome, names in names_by_outcome.items():
        yield f"- {outcome}: {', '.join(names)}"


def _build_metric_rows(
    metrics: Mapping[str, MetricSpec],
) -> Iterable[tuple[str, str, str, str]]:
    for name, spec in metrics.items():
        stored = f"{name}_total" if spec.kind == "counter" else name
        yield code(stored), spec.kind, ", ".join(spec.labels), spec.meaning


def content_tables() -> dict[str, str]:
    """Writes every place with content, and the copies that a deletion does not reach."""
    files = [(file.place, file.holds, file.ends, file.deletion) for file in FILES]
    return {
        "content": table(PLACE_HEADS, _group_by_deletion(_build_place_rows(COLUMNS))),
        "users": table(PLACE_HEADS, _group_by_deletion(_build_place_rows(USERS))),
        "files": table(PLACE_HEADS, _group_by_deletion(files)),
        "beyond": "\n".join(f"- {text[0].upper()}{text[1:]}." for text in REMAINING_COPIES),
    }


def _group_by_deletion(
    rows: Iterable[tuple[str, str, str, str]],
) -> Iterator[tuple[str, str, str]]:
    """Yields a row for all places with the same end and the same deletion."""
    places_by_deletion: dict[tuple[str, str], list[str]] = {}
    for place, holds, end, deletion in rows:
        places_by_deletion.setdefault((end, deletion), []).append(f"{place}: {holds}")
    for (end, deletion), places in places_by_deletion.items():
        yield "; ".join(places), end, deletion


def _build_place_rows(columns: Iterable[ContentColumn]) -> Iterator[tuple[str, str, str, str]]:
    for column in columns:
        place = code(f"{column.table}.{column.column}")
        yield place, column.holds, column.ends, column.deletion


def error_table() -> str:
    """Writes the errors in the order of the tree in their module's docstring."""
    classes = {cls.__name__: cls for cls in _find_subclasses(SwapproofError)}
    lines = []
    for name, meaning in ERROR_LINE.findall(errors.__doc__ or ""):
        cls = classes[name]
        retryable = ", retryable" if cls.retryable else ""
        lines.append(f"- {code(name)} ({cls.exit_code}{retryable}): {meaning}")
    return "\n".join(lines)


def _find_subclasses(cls: type[SwapproofError]) -> Iterator[type[SwapproofError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _find_subclasses(child)


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
    """Writes the keys by section. Keys without a section come first."""
    schema = json_schema()
    properties: Schema = schema["properties"]  # type: ignore[assignment]
    keys = [
        key
        for name, field in properties.items()
        if name != "policies"
        for key in _read_keys(name, field, schema, _NO_DEFAULT)
        if key.name != name or not key.kind.startswith(("mapping to mappings", "list of m"))
    ]
    sections: dict[str, list[Key]] = {}
    for key in _merge_alike(keys):
        sections.setdefault(re.split(r"[.\[]", key.name)[0], []).append(key)
    plain = [key for section in sections.values() if len(section) == 1 for key in section]
    parts = []
    for name, field in properties.items():
        if name == "policies":
            parts += ["## `policies`", "See [policies](policies.md)."]
        elif len(sections[name]) > 1:
            parts += [
                f"## `{name}`",
                _link_meaning(field),
                _write_keys(sections[name]),
            ]
    return _join_parts("## Keys without a section", _write_keys(plain), *parts)


def _write_keys(keys: Iterable[Key]) -> str:
    return "\n".join(
        f"- {key.path} ({'; '.join(filter(None, (key.kind, key.default)))}): {key.meaning}"
        for key in keys
    )


def _merge_alike(keys: Sequence[Key]) -> list[Key]:
    """Merges keys that differ only in the last part of their name. Also merges the keys of a
    mapping if an earlier mapping has them too.
    """
    groups: dict[tuple[str, ...], list[Key]] = {}
    for key in keys:
        groups.setdefault((key.parent, key.kind, key.default, key.meaning), []).append(key)
    rows = []
    for group in groups.values():
        other_names = "".join(f", `.{key.leaf}`" for key in group[1:])
        rows.append(group[0]._replace(path=group[0].path + other_names))
    return _merge_copies(rows)


def _merge_copies(keys: Sequence[Key]) -> list[Key]:
    """Replaces a mapping's keys by one row if an earlier mapping has them too."""
    parents = list(dict.fromkeys(key.parent for key in keys))
    keys_by_parent = {parent: _find_keys_below(parent, keys) for parent in parents}
    originals: dict[str, str] = {}
    for position, parent in enumerate(parents):
        for earlier in parents[:position]:
            if (
                len(keys_by_parent[earlier]) >= FEWEST_COPIED_KEYS
                and keys_by_parent[earlier] <= keys_by_parent[parent]
            ):
                originals.setdefault(parent, earlier)
    rows: list[Key] = []
    for key in keys:
        copy_path = next(
            (path for path in originals if key.name.startswith(f"{path}.")),
            None,
        )
        relative = key._replace(path=key.name.removeprefix(f"{copy_path}."))
        if copy_path is None or relative not in keys_by_parent[originals[copy_path]]:
            rows.append(key)
        elif not any(row.name == f"{copy_path}.*" for row in rows):
            rows.append(
                Key(
                    code(f"{copy_path}.*"),
                    "mapping",
                    "",
                    f"As `{originals[copy_path]}.*`.",
                )
            )
    return rows


def _find_keys_below(parent: str, keys: Sequence[Key]) -> set[Key]:
    """Finds the keys below a mapping, with paths relative to it."""
    return {
        key._replace(path=key.name.removeprefix(f"{parent}."))
        for key in keys
        if key.name.startswith(f"{parent}.")
    }


def _join_parts(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def list_policies(shipped: str) -> str:
    """Writes the shipped policies' settings.

    Args:
        shipped: the text of the default configuration.
    """
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
        comment = _find_comment(name, shipped)
        parts += [f"### `{name}`", comment, f"```yaml\n{text}```"]
    return _join_parts(*parts)


def list_policy_keys() -> str:
    """Writes the keys of a policy by subject."""
    schema = json_schema()
    entry = schema["$defs"]["PolicyFields"]  # type: ignore[index]
    groups: dict[str, list[Key]] = {}
    for name, field in entry["properties"].items():
        for key in _read_keys(name, field, schema, _NO_DEFAULT):
            groups.setdefault(_find_group(key.path.strip("`")), []).append(key)
    sections = (
        (f"### {group}", _write_keys(_merge_alike(keys))) for group, keys in groups.items()
    )
    return _join_parts(*(part for parts in sections for part in parts))


def _find_group(path: str) -> str:
    section, dot, subpath = path.partition(".")
    if not dot:
        return "Approval"
    if section == "gate":
        return "The gate"
    key_name = re.split(r"[.\[]", subpath)[0]
    titles = {
        "steps": "Steps of the canary",
        "guardrails": "Guardrails of the canary",
        "judge": "The judge of the canary",
        "audience": "The audience of the canary",
        "peak": "Peak hours",
    }
    return titles.get(key_name, "The canary")


def _find_comment(name: str, text: str) -> str:
    """Returns the comment above the policy in the shipped file; empty without one."""
    match = re.search(rf"((?:^  # .*\n)+)  {re.escape(name)}:$", text, re.MULTILINE)
    return " ".join(line.strip("# ") for line in match[1].splitlines()) if match else ""


def _read_keys(
    path: str,
    field: Schema,
    root: Schema,
    parent_default: object,
    *,
    required: bool = False,
) -> Iterator[Key]:
    """Yields the key, or the keys below it.

    Args:
        parent_default: the key's value in the default of its parent.
    """
    default = (
        field.get("default", _NO_DEFAULT) if parent_default is _NO_DEFAULT else parent_default
    )
    mapping, suffix = _find_mapping(field, root)
    if mapping is None or suffix or "anyOf" in field:
        yield _read_key(path, field, root, default, required=required)
        default = _NO_DEFAULT
    if mapping is None:
        return
    values = default if isinstance(default, Mapping) else {}
    for name, child in mapping["properties"].items():
        yield from _read_keys(
            f"{path}{suffix}.{name}",
            child,
            root,
            values.get(name, _NO_DEFAULT),
            required=name in mapping.get("required", ()),
        )


def _find_mapping(field: Schema, root: Schema) -> tuple[Schema | None, str]:
    """Finds the mapping of known keys to which a field leads, and the suffix of its path.

    The suffix is `[]` in a list, and `.NAME` if people choose the names.
    """
    for option in _resolve_options(field, root):
        if "properties" in option:
            return option, ""
        for key, suffix in (
            ("items", "[]"),
            ("additionalProperties", ".NAME"),
        ):
            if isinstance(option.get(key), Mapping):
                inner, further = _find_mapping(option[key], root)
                if inner is not None:
                    return inner, suffix + further
    return None, ""


def _resolve_options(field: Schema, root: Schema) -> list[Schema]:
    """Lists the alternatives of a field, without references and without null."""
    if "anyOf" in field:
        return [kind for option in field["anyOf"] for kind in _resolve_options(option, root)]
    if "$ref" in field:
        return _resolve_options(root["$defs"][field["$ref"].rpartition("/")[2]], root)
    return [] if field.get("type") == "null" else [field]


def _read_key(
    path: str,
    field: Schema,
    root: Schema,
    default: object,
    *,
    required: bool,
) -> Key:
    kind = " or ".join(
        dict.fromkeys(_name_type(option, root) for option in _resolve_options(field, root))
    )
    if field.get("maximum", LARGEST_SHOWN_BOUND + 1) <= LARGEST_SHOWN_BOUND:
        kind += f", {field['x-range']}"
    unit = field.get("x-unit", "")
    if unit:  # a unit implies a number
        other_types = NUMBER_TYPE.sub("", kind)
        kind = f"{kind}, {unit}" if other_types == kind else f"{other_types} {unit}".strip()
    elif kind == "boolean" and default is not _NO_DEFAULT:
        kind = ""
    return Key(
        code(path),
        kind,
        _format_default(
            "off" if default is False and code("off") in kind else default,
            required=required,
        ),
        _link_meaning(field),
    )


def _name_type(option: Schema, root: Schema) -> str:
    if "enum" in option:
        values = [code(str(value)) for value in option["enum"]]
        return ", ".join(values) if len(values) <= MOST_LISTED_VALUES else "string"
    if "const" in option:
        return code("off" if option["const"] is False else str(option["const"]))
    match option.get("type"):
        case "array":
            return f"list of {_name_plural_type(option.get('items', {}), root)}"
        case "object" if "properties" not in option:
            value_option = option.get("additionalProperties")
            return (
                f"mapping to {_name_plural_type(value_option, root)}"
                if isinstance(value_option, Mapping)
                else "mapping"
            )
        case "object":
            return "mapping"
        case kind:
            return str(kind or "any value")


def _name_plural_type(field: Schema, root: Schema) -> str:
    names = dict.fromkeys(_name_type(option, root) for option in _resolve_options(field, root))
    plain = {"any value": "anything"}
    words = [
        plain.get(name, name if " " in name or "`" in name else f"{name}s") for name in names
    ]
    return " or ".join(words) or "anything"


def _format_default(value: object, *, required: bool) -> str:
    if value is _NO_DEFAULT:
        return "required" if required else ""
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = json.dumps(value, ensure_ascii=False)
    return code(text.strip('"')) if len(text) < LONGEST_DEFAULT else f"{len(value)} entries"  # type: ignore[arg-type]


def _link_meaning(field: Schema) -> str:
    description = str(field.get("description", ""))
    if not description:
        return ""
    with_links = PAGE_LINK.sub(
        _link_to_page, _format_sentence(description).replace("None", "null")
    )
    return SECTION_LINK.sub(
        lambda match: link("statistics", f"statistics, {match[1]}"), with_links
    )


def _link_to_page(match: re.Match[str]) -> str:
    return link(match[1], match[1].rpartition("/")[2])


def _format_sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", ":")) else f"{text}."


_NO_DEFAULT: Final = object()
LONGEST_DEFAULT: Final = 60
NUMBER_TYPE: Final = re.compile(r"^(?:number|integer)(?:, |$)")
# A range with a larger end only excludes absurd values, and an error names it.
LARGEST_SHOWN_BOUND: Final = 1_000
# A key with more values has them on a page of their own.
MOST_LISTED_VALUES: Final = 20
# A mapping with fewer keys does not count as copied.
FEWEST_COPIED_KEYS: Final = 4
