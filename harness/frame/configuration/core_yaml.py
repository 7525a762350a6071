"""Reads YAML 1.2, in which `yes`, `no`, `on` and `off` are texts, and writes values for YAML.

JavaScript's tools write YAML 1.2. PyYAML reads YAML 1.1, in which these words are true and
false, `1:30` is 90, and `010` is 8.
"""

import json
import re
from typing import Any, Final

import yaml

from harness.frame.errors import InputError

_SCALARS: Final = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (
        "int",
        r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0b[01]+",
        "-+0123456789",
    ),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)",
        "-+0123456789.",
    ),
)
_KEPT_TAGS: Final = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")


def _build_resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items():
        resolvers[first] = [(tag, pattern) for tag, pattern in pairs if tag in _KEPT_TAGS]
    for name, pattern, starts in _SCALARS:
        for first in starts:
            tag = f"tag:yaml.org,2002:{name}"
            resolvers.setdefault(first, []).append((tag, re.compile(rf"(?:{pattern})\Z")))
    return resolvers


CORE_RESOLVERS: Final = _build_resolvers()


class _CoreLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    yaml_implicit_resolvers = CORE_RESOLVERS


def parse_core_yaml(text: str) -> Any:
    """Returns a document's value. Raises InputError."""
    try:
        return yaml.load(text, _CoreLoader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"not YAML: {' '.join(str(error).split())[:200]}") from None


# Characters that YAML or TOML refuses, or reads as the end of a line.
_UNSAFE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def write_value(value: object) -> str:
    """Writes JSON that is also valid YAML and TOML. It escapes no characters beyond U+FFFF,
    because YAML and TOML misread JSON's escapes of them.
    """
    text = json.dumps(value, ensure_ascii=False)
    return _UNSAFE.sub(lambda mark: f"\\u{ord(mark[0]):04x}", text)
