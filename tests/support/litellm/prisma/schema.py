"""Reads the models of LiteLLM's `schema.prisma`."""

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import litellm_proxy_extras

_MODEL = re.compile(r"^model (\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\s+(\w+)\s+(\w+)(\[\])?(\?)?(.*)$")
_KEY = re.compile(r"@@(?:id|unique)\(\[([\w, ]+)\]")


@dataclass(frozen=True)
class Field:
    name: str
    type: str
    is_list: bool
    attributes: str

    @property
    def column(self) -> str:
        mapped = re.search(r'@map\("(\w+)"\)', self.attributes)
        return mapped[1] if mapped else self.name


@dataclass(frozen=True)
class Model:
    name: str
    fields: dict[str, Field]
    keys: frozenset[str]  # names of unique keys of several fields

    @property
    def names(self) -> dict[str, str]:
        return {field.column: field.name for field in self.fields.values()}

    def field(self, name: str) -> Field:
        if name not in self.fields:
            raise ValueError(f"{self.name} has no field {name!r}")
        return self.fields[name]

    def defaults(self) -> dict[str, object]:
        new = {n: str(uuid.uuid4()) for n, f in self.fields.items() if "uuid()" in f.attributes}
        return {**new, **self.touched()}

    def touched(self) -> dict[str, object]:
        marked = (n for n, f in self.fields.items() if "@updatedAt" in f.attributes)
        return dict.fromkeys(marked, datetime.now(UTC))


def read_models() -> dict[str, Model]:
    file = Path(litellm_proxy_extras.__file__).with_name("schema.prisma")
    return {name: _read(name, body) for name, body in _MODEL.findall(file.read_text("utf-8"))}


def _read(name: str, body: str) -> Model:
    found = [_FIELD.match(line.partition("//")[0]) for line in body.splitlines()]
    fields = {m[1]: Field(m[1], m[2], bool(m[3]), m[5] or "") for m in found if m}
    keys = (re.split(r",\s*", key) for key in _KEY.findall(body))
    return Model(name, fields, frozenset("_".join(key) for key in keys))
