"""Parses YAML and keeps the file and line of every value, for error messages. The size of the
input is limited, because a few lines of aliases can expand to a billion values. Environment
variables override the file (SWAPPROOF__SECTION__KEY, and *_FILE for a value in a file).

This module knows no key of the configuration, because it also parses other tools' suites and
the simulator's profiles. `schema` knows the keys.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from harness.frame.configuration.core_yaml import CORE_RESOLVERS
from harness.frame.errors import ConfigError, InputError

KeyPath = tuple[str | int, ...]
MAX_CHARACTERS: Final = 1_000_000
# Nested aliases multiply the values, and no Swapproof file needs many of them.
MAX_ALIASES: Final = 20
MAX_DEPTH: Final = 32
TOO_DEEP: Final = f"is nested more than {MAX_DEPTH} deep"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """The values of one or several merged files, with their places."""

    values: dict[str, object]  # plain dicts, lists and scalars
    places: Mapping[KeyPath, str]  # path of a value to `file:line`

    def place(self, path: KeyPath) -> str:
        """Returns `file:line` of the value at `path`, or of the nearest section around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return "configuration"

    def error(self, path: KeyPath, message: object) -> ConfigError:
        """Builds an error with the place and the path of a value."""
        return ConfigError(f"{self.place(path)}: {dotted_path(path)}: {message}")

    @contextmanager
    def at(self, *path: str | int) -> Iterator[None]:
        """Turns an InputError of the block into a ConfigError with the place of `path`."""
        try:
            yield
        except InputError as error:
            raise self.error(path, error) from None


def dotted_path(path: KeyPath) -> str:
    """Writes a path as `routes.chat.suites.0`."""
    return ".".join(str(part) for part in path)


# Brackets by PyYAML's words for the place of a fault.
_OPEN_BRACKETS: Final = {
    "while parsing a flow mapping": ("{", "}"),
    "while parsing a flow sequence": ("[", "]"),
}


class _Limits:
    """Counts aliases and nesting of one document while it is parsed."""

    def __init__(self) -> None:
        self._aliases = self._depth = 0

    def note(self, event: yaml.Event) -> None:
        """Raises yaml.MarkedYAMLError above MAX_ALIASES or MAX_DEPTH, and for a lone surrogate,
        because databases and terminals refuse it.
        """
        if isinstance(event, yaml.ScalarEvent) and _SURROGATE.search(event.value):
            raise _build_refusal(
                "contains a lone surrogate (half of a character): remove it",
                event,
            )
        self._aliases += isinstance(event, yaml.AliasEvent)
        self._depth += isinstance(event, yaml.CollectionStartEvent)
        self._depth -= isinstance(event, yaml.CollectionEndEvent)
        if self._aliases > MAX_ALIASES:
            problem = f"has more than {MAX_ALIASES} aliases; write the values out"
            raise _build_refusal(problem, event)
        if self._depth > MAX_DEPTH:
            raise _build_refusal(TOO_DEEP, event)


def _build_refusal(problem: str, at: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    """Builds a YAML error with the line of an event or a node."""
    return yaml.MarkedYAMLError(None, None, problem, at.start_mark)  # type: ignore[arg-type]  # its stubs know one of two kinds of mark


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses duplicate keys and texts above the limits."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._limits = _Limits()

    def get_event(self) -> yaml.Event:
        event: yaml.Event = super().get_event()  # type: ignore[no-untyped-call]
        self._limits.note(event)
        return event


class _CoreLoader(_Loader):
    """A loader for YAML 1.2, in which `yes` and `on` are texts."""

    yaml_implicit_resolvers = CORE_RESOLVERS


def _build_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    """Builds a mapping. Refuses a key that is given twice, and a key that is not a scalar."""
    keys: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _build_refusal("a key is a list or a mapping: write a text", key)
        if key.value in keys:
            raise _build_refusal(f"the key {key.value!r} is given twice", key)
        keys.add(key.value)
    return dict(loader.construct_mapping(node, deep=True))


for _loader in (_Loader, _CoreLoader):
    _loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _build_mapping)


def parse_file(file: Path, *, core: bool = False) -> Document:
    """Reads a file, as YAML 1.2 for another tool's file (`core`). Raises ConfigError."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; `swapproof init` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    return parse_text(text, file, core=core)


def parse_text(
    text: str,
    file: Path,
    *,
    core: bool = False,
) -> Document:
    """Parses a text as `parse_file` does.

    Args:
        file: the name for places and messages.

    Raises ConfigError.
    """
    places: dict[KeyPath, str] = {(): f"{file}:1"}
    try:
        _check_length(text)
        values = _parse_values(text, file, places, core=core)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{file}:{_describe_syntax(error, text)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}:1: is not YAML: {error}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}:1: must be a mapping of sections, like `router:`")
    return Document(values, places)


def _describe_syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    """Describes a fault of YAML for people, after the number of its line."""
    mark = error.problem_mark
    problem = error.problem or "is not YAML"
    if mark is None:
        return f"1: {problem}"
    line = mark.line + 1
    lines = text.splitlines()
    if mark.line < len(lines) and "\t" in lines[mark.line][: mark.column + 1]:
        return f"{line}: a tab stands in the indentation: write spaces instead, as YAML needs"
    if unclosed := _describe_unclosed(error, line):
        return unclosed
    if "<stream end>" in problem:
        return f"{line}: the file ends within a value: a `[`, a `{{` or a quote is not closed"
    if problem == "mapping values are not allowed here":
        problem = (
            "this line has a `:` too many, or the wrong indentation; quote a text with `: `"
        )
    return f"{line}: {problem}"


def _describe_unclosed(error: yaml.MarkedYAMLError, line: int) -> str:
    """Describes an open quote or bracket, after the number of its line; empty for other faults.

    Args:
        line: where PyYAML stopped, often lines after the bracket.
    """
    if error.context_mark is None:
        return ""
    opened = error.context_mark.line + 1
    if error.context == "while scanning a quoted scalar":
        return f"{opened}: the quote of this line is not closed"
    if error.context not in _OPEN_BRACKETS:
        return ""
    bracket, closing = _OPEN_BRACKETS[error.context]
    if opened != line or "<stream end>" in (error.problem or ""):
        return f"{opened}: the `{bracket}` of this line is not closed: add a `{closing}`"
    return f"{line}: a `,` or a `{closing}` is missing after a value"


def _parse_values(
    text: str,
    file: Path,
    places: dict[KeyPath, str],
    *,
    core: bool,
) -> object:
    """Parses a text, and notes the place of each value in `places`. Returns None for an empty
    text.
    """
    loader = (_CoreLoader if core else _Loader)(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        # Notes the lines first, because construct_document replaces `<<` by the merged keys.
        _note_places(root, (), file, places)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def check_size(text: str) -> None:
    """Checks the limits of a YAML text without building its values. Raises yaml.YAMLError."""
    _check_length(text)
    limits = _Limits()
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        limits.note(event)


def _check_length(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise yaml.MarkedYAMLError(problem=f"is longer than {MAX_CHARACTERS:,} characters")


def _note_places(
    node: yaml.Node,
    path: KeyPath,
    file: Path,
    places: dict[KeyPath, str],
) -> None:
    """Notes the line of each key and each item of a list."""
    if len(path) > MAX_DEPTH:  # for example, a list that contains its own alias
        raise _build_refusal(TOO_DEEP, node)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            places[inner] = f"{file}:{key.start_mark.line + 1}"
            _note_places(value, inner, file, places)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            inner = (*path, index)
            places[inner] = f"{file}:{value.start_mark.line + 1}"
            _note_places(value, inner, file, places)


def merge_documents(under: Document, over: Document) -> Document:
    """Merges `over` into `under`: mappings key by key; other values replace."""
    return Document(_merge(under.values, over.values), {**under.places, **over.places})


def _merge(under: dict[str, object], over: dict[str, object]) -> dict[str, object]:
    result = dict(under)
    for key, value in over.items():
        old = result.get(key)
        mergeable = isinstance(old, dict) and isinstance(value, dict)
        result[key] = _merge(old, value) if mergeable else value  # type: ignore[arg-type]
    return result


PREFIX = "SWAPPROOF__"


def environment_document(environ: Mapping[str, str]) -> Document:
    """Reads the SWAPPROOF__ variables, whose values are YAML scalars. Raises ConfigError.

    SWAPPROOF__ROUTER__PORT sets `router.port`: two underscores separate the keys, in lower
    case.
    """
    values: dict[str, object] = {}
    places: dict[KeyPath, str] = {}
    for name in sorted(environ):
        if not name.startswith(PREFIX):
            continue
        text, key_name = _read_variable(name, environ[name])
        path = tuple(part.lower() for part in key_name.removeprefix(PREFIX).split("__"))
        _set_value(values, path, _parse_scalar(name, text))
        for end in range(1, len(path) + 1):
            places[path[:end]] = f"environment variable {name}"
    return Document(values, places)


def _read_variable(name: str, value: str) -> tuple[str, str]:
    """Returns a variable's value, and its name without `_FILE` if the value is a file's
    path.
    """
    if not name.endswith("_FILE"):
        return value, name
    try:
        return Path(value).read_text(encoding="utf-8").strip(), name.removesuffix("_FILE")
    except OSError as error:
        raise ConfigError(
            f"environment variable {name}: cannot read {value} ({error.strerror}): correct the "
            "path, or unset the variable"
        ) from None


def _parse_scalar(name: str, text: str) -> object:
    try:
        check_size(text)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"environment variable {name}: not a YAML value: {error}") from None


def _set_value(
    values: dict[str, object],
    path: tuple[str, ...],
    value: object,
) -> None:
    """Sets a value in nested mappings. Raises ConfigError if another variable sets one of its
    sections to a scalar.
    """
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"environment: {PREFIX}{'__'.join(path).upper()} contradicts another variable"
            )
        values = inner
    values[path[-1]] = value
