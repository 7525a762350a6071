"""Rewrites the ids of tool calls in a history to what a target takes: length, alphabet, none
empty and none twice. Call and result keep one id; a longer history gives the same ids. In
answers, an id that the history has already is written anew. Pure.
"""

import re
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Final, NamedTuple

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_IDS: Final = re.compile(rb'"(?:tool_call_id|tool_use_id|call_id)"\s*:\s*"([^"]*)"')
NO_IDS: Final[frozenset[bytes]] = frozenset()
CHAT_RESULT: Final = b'"tool_call_id"'
CALL_ID: Final = b'"call_id"'
RESULT_IDS: Final = (CHAT_RESULT, b'"tool_use_id"', CALL_ID)


class IdRule(NamedTuple):
    """What a kind takes as the id of a tool call."""

    pattern: re.Pattern[str]
    length: int  # of an id that is written anew
    prefix: str = ""
    unique: bool = False  # over the whole history

    def fits(self, id_: str) -> bool:
        return self.pattern.fullmatch(id_) is not None

    def suits(self, body: bytes) -> bool:
        """Tells quickly, of a body as it came, that all its ids are taken as they are."""
        if not any(name in body for name in RESULT_IDS):
            return True
        found = _IDS.findall(body)
        if self.unique and len(set(found)) < len(found):
            return False
        return all(self.fits(id_.decode("utf-8", "replace")) for id_ in found)


class CallIds:
    """The ids of one history, in the order of its turns."""

    def __init__(self, rule: IdRule) -> None:
        self._rule = rule
        self._used: set[str] = set()
        self._seen: dict[str, int] = defaultdict(int)
        self._open: dict[str, deque[str]] = defaultdict(deque)
        self._answered: dict[str, str] = {}

    def begin_turn(self) -> None:
        """An answer begins: the results behind it are of its calls."""
        self._open.clear()

    def of_call(self, given: object) -> str:
        """Returns the id of the next call."""
        old = given if isinstance(given, str) else ""
        number = self._seen[old]
        self._seen[old] += 1
        new = old
        while not self._rule.fits(new) or new in self._used:
            new = _written(self._rule, f"{old}\n{number}")
            number += 1
        self._used.add(new)
        self._open[old].append(new)
        return new

    def of_result(self, given: object) -> str:
        """Returns the id of the next result: of several calls with one id, in their order."""
        old = given if isinstance(given, str) else ""
        if self._open[old]:
            self._answered[old] = self._open[old].popleft()
        return self._answered.get(old, old)


def _written(rule: IdRule, seed: str) -> str:
    number = int.from_bytes(sha256(seed.encode("utf-8", "surrogatepass")).digest())
    digits: list[str] = []
    while len(digits) < rule.length - len(rule.prefix):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return rule.prefix + "".join(digits)


def history_ids(body: bytes) -> frozenset[bytes]:
    """Lists the ids of a history's results, as the client wrote them."""
    if not any(name in body for name in RESULT_IDS):
        return NO_IDS
    return frozenset(_IDS.findall(body)) - {b""}


def fresh_ids(taken: frozenset[bytes]) -> Callable[[bytes], bytes]:
    """Gives calls of an answer another id where the history has theirs already: some servers
    number the calls of each answer from 0, and clients take the second one for a repeat.
    """
    known = b"|".join(re.escape(id_) for id_ in taken)
    pattern = re.compile(rb'("(?:id|call_id)"\s*:\s*)"(' + known + rb')"')

    def named(found: re.Match[bytes]) -> bytes:
        number = len(taken)
        while (new := b"%b_%d" % (found[2], number)) in taken:
            number += 1
        return b'%b"%b"' % (found[1], new)

    return partial(pattern.sub, named)
