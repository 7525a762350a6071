"""Reads family, version and date of a model's name; compares names and hosts. Pure.

Vendors follow no common form, so the rules read words, numbers, dates and marks such as
`latest`, and accept any text. Nothing here knows which models exist: see `model_match`. The
comparison of names and hosts keeps a renamed model from getting a new look
(`harness.proposals.registration`).
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from harness.gate.pins import Sighting
from harness.providers.api_base_rules import plain_host
from harness.providers.target import Provider, Target

LOOPBACK: Final = "127.0.0.1"
LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain"})
NAT64: Final = ip_network("64:ff9b::/96")  # RFC 6052


def provider_host(provider: Provider | None) -> str:
    """Returns a provider's host in its plain form, with a port that is not the scheme's usual
    port.

    Empty for a missing provider. An address that is no URL stays as it is, in lower case.
    """
    if provider is None:
        return ""
    try:
        place = urlsplit(provider.api_base)
        host = _one_machine(plain_host(place.hostname or ""))
        port = place.port
    except ValueError:
        return provider.api_base.casefold()
    standard = {"http": 80, "https": 443}.get(place.scheme)
    return host if port in (None, standard) else f"{host}:{port}"


def _one_machine(host: str) -> str:
    """Maps all names and addresses of this machine to LOOPBACK, and IPv4 to one form."""
    if host in LOOPBACK_NAMES or host.endswith(".localhost"):
        return LOOPBACK
    try:
        found = ip_address(host)
    except ValueError:
        return host
    if isinstance(found, IPv6Address):
        carried = IPv4Address(found.packed[-4:]) if found in NAT64 else found.ipv4_mapped
        found = carried or found
    return LOOPBACK if found.is_loopback or found.is_unspecified else str(found)


def normalize_model_name(name: str) -> str:
    """Removes differences that people cannot see: case, width, dashes, invisible characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = (char for char in folded if unicodedata.category(char) != "Cf")
    return "".join("-" if unicodedata.category(char) == "Pd" else char for char in seen).strip()


def known_model_names(target: Target, served: Iterable[Sighting]) -> frozenset[str]:
    """Returns the names of a target's model in comparable form: requested, and reported by its
    provider.
    """
    seen = (sighting.served.model for sighting in served)
    return frozenset(normalize_model_name(name) for name in (target.model, *seen) if name)


def same_host(host: str, other: str) -> bool:
    """Whether two hosts may be the same. An unknown host may be any host."""
    return not host or not other or host == other


Version = tuple[int, ...]

PREVIEW_WORDS: Final = frozenset({"preview", "exp", "experimental", "beta", "alpha", "rc"})
_SILENT: Final = frozenset({"default", "the", "model"})
# The vendor and region of a cloud's id: `us.anthropic.claude-…`.
_CLOUD: Final = re.compile(r"^(?:[a-z-]+\.)?(?:[a-z0-9]*[a-z]{2}[a-z0-9]*)\.(?=[a-z])")
_CLOUD_VERSION: Final = re.compile(r"-v\d+(?::\d+(?::\w+)?)?$")
_DATES: Final = re.compile(
    r"(?<!\d)(?:(?P<y>20\d\d)-?(?P<m>0[1-9]|1[0-2])-?(?P<d>0[1-9]|[12]\d|3[01])"
    r"|(?P<m2>0[1-9]|1[0-2])-(?P<y2>20\d\d))(?!\d)"
)
_STAMP: Final = re.compile(r"^(?P<a>\d\d)(?P<b>\d\d)$")  # mistral's 2512, openai's 0613
_NUMBER: Final = re.compile(r"^v?(\d{1,3}(?:\.\d{1,3})*)$")
_GLUED: Final = re.compile(r"^([a-z]+?)v?(\d{1,2}(?:\.\d+)*)$")
_GLUED_WORD: Final = re.compile(r"^([a-z]{2,})(\d+[a-z]+)$")
# Words that open weights carry beside their size, because the base model has the same name.
_TUNING_WORDS: Final = frozenset({"chat", "instruct", "it"})
_SIZE: Final = re.compile(r"^(?:[ae]?\d+(?:\.\d+)?(?:x\d+)?[bkm]|\d+x\d+b)$")


@dataclass(frozen=True, slots=True)
class ModelName:
    words: tuple[str, ...]  # the words of its family, in order
    version: Version = ()  # without trailing zeros; empty without a version
    # YYYYMMDD, with 00 for an unknown day, or MMDD without a year; 0 without a date.
    date: int = 0
    preview: bool = False
    latest: bool = False  # an alias of the newest version

    @property
    def family(self) -> str:
        return "-".join(self.words)

    @property
    def rank(self) -> tuple[bool, Version, bool, int]:
        """A key for sorting by age: a newer model is greater. Previews are the smallest. At
        equal versions, `latest` aliases are smaller than other names.
        """
        return (
            not self.preview,
            self.version,
            not self.latest,
            self.date or 99_999_999,
        )


def count_other_words(family: frozenset[str], wanted: frozenset[str]) -> tuple[int, bool]:
    """Counts the words that a family has beside those of a name, and tells whether it is one of
    several sizes. All sizes of open weights rank equally: for `qwen`, `qwen-27b` and
    `qwen-7b-instruct` are both (0, True).
    """
    others = family - wanted
    sizes = {word for word in others if _SIZE.match(word)}
    has_size = any(map(_SIZE.match, family))
    tuning = others & _TUNING_WORDS if has_size else frozenset()
    return len(others - sizes - tuning), bool(sizes or tuning)


@dataclass
class _Reading:
    words: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    date: int = 0
    preview: bool = False
    latest: bool = False
    # Whether the last part was a number of the version, which the next number continues.
    in_version: bool = False


def parse_model_name(name: str) -> ModelName:
    """Parses a model's name, ignoring a vendor before its last slash. Accepts any text."""
    text = name.strip().lower().rpartition("/")[2]
    if _CLOUD.match(text):
        text = _CLOUD_VERSION.sub("", _CLOUD.sub("", text))
    read = _Reading()
    text = _DATES.sub(lambda match_: _dated(read, match_), text)
    for token in re.split(r"[\s\-_:@/,]+", text):
        _take(read, token)
    while read.numbers and read.numbers[-1] == 0:
        read.numbers.pop()
    return ModelName(
        tuple(read.words),
        tuple(read.numbers),
        read.date,
        read.preview,
        read.latest,
    )


def _dated(read: _Reading, found: re.Match[str]) -> str:
    """Notes a date, and returns a separator in its place."""
    year = found["y"] or found["y2"]
    month = found["m"] or found["m2"]
    read.date = int(f"{year}{month}{found['d'] or '00'}")
    return " "


def _take(read: _Reading, token: str) -> None:
    """Reads one part of a name, such as `gpt`, `4.1`, `mini` or `2024`."""
    continues = read.in_version
    read.in_version = False
    if not token.strip(".") or token in _SILENT:
        return
    if token in PREVIEW_WORDS:
        read.preview = True
    elif token == "latest":  # noqa: S105 - no secret
        read.latest = True
    elif stamp := _STAMP.match(token):
        read.date = read.date or _stamped(stamp)
    elif number := _NUMBER.match(token):
        _count(
            read,
            number[1],
            continues=continues,
            as_word=token,
        )
    elif _SIZE.match(token):
        read.words.append(token)
    elif glued := _GLUED.match(token):
        read.words.append(glued[1])
        _count(
            read,
            glued[2],
            continues=False,
            as_word=glued[2],
        )
    elif glued := _GLUED_WORD.match(token):
        read.words += [glued[1], glued[2]]
    else:
        read.words.append(token)


def _stamped(stamp: re.Match[str]) -> int:
    """Reads four digits as year and month if they are plausible, otherwise as month and day."""
    a = int(stamp["a"])
    b = int(stamp["b"])
    return 20_000_000 + a * 10_000 + b * 100 if 23 <= a <= 49 and 1 <= b <= 12 else a * 100 + b


def _count(
    read: _Reading,
    text: str,
    *,
    continues: bool,
    as_word: str,
) -> None:
    """Adds numbers to the version. After another word, numbers count as a word."""
    if read.numbers and not continues:
        read.words.append(as_word)
        return
    read.numbers += [int(part) for part in text.split(".")]
    read.in_version = True
