"""Gives tools names that their target takes, where it would refuse the client's: dots,
slashes, too many characters. A name is the same in every turn, and is given back in answers.
Pure.
"""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

_NAMES: Final = re.compile(rb'"name"\s*:\s*"([^"]*)"')
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_-]")
_HASH_DIGITS: Final = 8


class ToolNames:
    """The tools of one request. pattern: of a name that the target takes."""

    def __init__(self, pattern: re.Pattern[str], longest: int) -> None:
        self.clients: dict[str, str] = {}  # the target's name → the client's
        self._pattern = pattern
        self._longest = longest

    def rename(self, holder: dict[str, object]) -> None:
        """Renames the tool that an object names."""
        name = holder.get("name")
        if not isinstance(name, str) or self._pattern.fullmatch(name):
            return
        digits = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
        plain = _STRANGE.sub("_", name)[: self._longest - _HASH_DIGITS - 3]
        taken = f"f_{plain}_{digits}" if not plain[:1].isalpha() else f"{plain}_{digits}"
        self.clients[taken] = name
        holder["name"] = taken


def has_strange_name(body: bytes, pattern: re.Pattern[str]) -> bool:
    """Tells quickly whether a body with tools may have a name that the target refuses."""
    return b'"tools"' in body and any(
        not pattern.fullmatch(name.decode("utf-8", "replace")) for name in _NAMES.findall(body)
    )


def with_client_names(data: bytes, names: Mapping[str, str]) -> bytes:
    """Gives the client's names back, in a part of an answer that cuts no name."""
    known = b"|".join(re.escape(name.encode()) for name in names)

    def named(found: re.Match[bytes]) -> bytes:
        return found[1] + json.dumps(names[found[2].decode()]).encode()

    return re.sub(rb'("name"\s*:\s*)"(' + known + rb')"', named, data)
