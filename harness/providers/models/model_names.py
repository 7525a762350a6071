"""Reads family, version and date of a model's name; compares names and hosts. Pure.

Vendors follow no common form, so the rules read words, numbers, dates and marks such as
`latest`, and accept any text. `model_match` knows the existing models. The comparison of names
and hosts prevents that a renamed model gets a second test on the same items
(`harness.proposals.registration.look_counts`).
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
        parts = urlsplit(provider.api_base)
        host = _normalize_host(plain_host(parts.hostname or ""))
        port = parts.port
    except ValueError:
        return provider.api_base.casefold()
    usual_port = {"http": 80, "https": 443}.get(parts.scheme)
    return host if port in (None, usual_port) else f"{host}:{port}"


def _normalize_host(host: str) -> str:
    """Maps all names and addresses of this machine to LOOPBACK, and IPv4 to one form."""
    if host in LOOPBACK_NAMES or host.endswith(".localhost"):
        return LOOPBACK
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        embedded = IPv4Address(address.packed[-4:]) if address in NAT64 else address.ipv4_mapped
        address = embedded or address
    return LOOPBACK if address.is_loopback or address.is_unspecified else str(address)


def normalize_model_name(name: str) -> str:
    """Removes differences that people overlook: case, width, kinds of dashes, invisible
    characters.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = (character for character in folded if unicodedata.category(character) != "Cf")
    return "".join(
        "-" if unicodedata.category(character) == "Pd" else character for character in visible
    ).strip()


def known_model_names(target: Target, sightings: Iterable[Sighting]) -> frozenset[str]:
    """Returns the names of a target's model in comparable form: its requested name, and the
    names that its provider reported.
    """
    served_names = (sighting.served.model for sighting in sightings)
    return frozenset(
        normalize_model_name(name) for name in (target.model, *served_names) if name
    )


def same_host(host: str, other: str) -> bool:
    """Tells whether two hosts may be the same. An empty (unknown) host may be any host."""
    return not host or not other or host == other


Version = tuple[int, ...]

PREVIEW_WORDS: Final = frozenset({"preview", "exp", "experimental", "beta", "alpha", "rc"})
_MEANINGLESS_WORDS: Final = frozenset({"default", "the", "model"})
# The vendor and region of a cloud's id: `us.anthropic.claude-…`.
_CLOUD_PREFIX: Final = re.compile(r"^(?:[a-z-]+\.)?(?:[a-z0-9]*[a-z]{2}[a-z0-9]*)\.(?=[a-z])")
_CLOUD_VERSION: Final = re.compile(r"-v\d+(?::\d+(?::\w+)?)?$")
_DATES: Final = re.compile(
    r"(?<!\d)(?:(?P<y>20\d\d)-?(?P<m>0[1-9]|1[0-2])-?(?P<d>0[1-9]|[12]\d|3[01])"
    r"|(?P<m2>0[1-9]|1[0-2])-(?P<y2>20\d\d))(?!\d)"
)
_FOUR_DIGITS: Final = re.compile(r"^(?P<a>\d\d)(?P<b>\d\d)$")  # mistral's 2512, openai's 0613
_NUMBER: Final = re.compile(r"^v?(\d{1,3}(?:\.\d{1,3})*)$")
_WORD_WITH_NUMBER: Final = re.compile(r"^([a-z]+?)v?(\d{1,2}(?:\.\d+)*)$")
_WORD_WITH_SIZE: Final = re.compile(r"^([a-z]{2,})(\d+[a-z]+)$")
# Words beside the size in the names of open weights: they tell a tuned model from its base
# model.
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
        """The sort key by age: a newer model has a greater key. Previews sort first. At equal
        versions, `latest` aliases sort before other names.
        """
        return (
            not self.preview,
            self.version,
            not self.latest,
            self.date or 99_999_999,
        )


def count_other_words(family: frozenset[str], wanted: frozenset[str]) -> tuple[int, bool]:
    """Counts the words of a family that a name lacks, without sizes, and tells whether the
    family has a size or tuning word that the name lacks. All sizes of open weights count
    equally: for `qwen`, both `qwen-27b` and `qwen-7b-instruct` give (0, True).
    """
    others = family - wanted
    sizes = {word for word in others if _SIZE.match(word)}
    has_size = any(map(_SIZE.match, family))
    tuning = others & _TUNING_WORDS if has_size else frozenset()
    return len(others - sizes - tuning), bool(sizes or tuning)


@dataclass
class _NameParts:
    words: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    date: int = 0
    preview: bool = False
    latest: bool = False
    # Whether the last token was a number of the version; the next number then continues it.
    in_version: bool = False


def parse_model_name(name: str) -> ModelName:
    """Parses a model's name, ignoring a vendor before its last slash. Accepts any text."""
    text = name.strip().lower().rpartition("/")[2]
    if _CLOUD_PREFIX.match(text):
        text = _CLOUD_VERSION.sub("", _CLOUD_PREFIX.sub("", text))
    parts = _NameParts()
    text = _DATES.sub(lambda match: _take_date(parts, match), text)
    for token in re.split(r"[\s\-_:@/,]+", text):
        _take_token(parts, token)
    while parts.numbers and parts.numbers[-1] == 0:
        parts.numbers.pop()
    return ModelName(
        tuple(parts.words),
        tuple(parts.numbers),
        parts.date,
        parts.preview,
        parts.latest,
    )


def _take_date(parts: _NameParts, match: re.Match[str]) -> str:
    """Stores a date, and returns a space that takes its place in the text."""
    year = match["y"] or match["y2"]
    month = match["m"] or match["m2"]
    parts.date = int(f"{year}{month}{match['d'] or '00'}")
    return " "


def _take_token(parts: _NameParts, token: str) -> None:
    """Reads one part of a name, such as `gpt`, `4.1`, `mini` or `2024`."""
    continues_version = parts.in_version
    parts.in_version = False
    if not token.strip(".") or token in _MEANINGLESS_WORDS:
        return
    if token in PREVIEW_WORDS:
        parts.preview = True
    elif token == "latest":  # noqa: S105 - no secret
        parts.latest = True
    elif four_digits := _FOUR_DIGITS.match(token):
        parts.date = parts.date or _parse_four_digits(four_digits)
    elif number := _NUMBER.match(token):
        _take_number(
            parts,
            number[1],
            continues=continues_version,
            as_word=token,
        )
    elif _SIZE.match(token):
        parts.words.append(token)
    elif match := _WORD_WITH_NUMBER.match(token):
        parts.words.append(match[1])
        _take_number(
            parts,
            match[2],
            continues=False,
            as_word=match[2],
        )
    elif match := _WORD_WITH_SIZE.match(token):
        parts.words += [match[1], match[2]]
    else:
        parts.words.append(token)


def _parse_four_digits(match: re.Match[str]) -> int:
    """Reads four digits as year and month if they are plausible, otherwise as month and day."""
    first = int(match["a"])
    second = int(match["b"])
    return (
        20_000_000 + first * 10_000 + second * 100
        if 23 <= first <= 49 and 1 <= second <= 12
        else first * 100 + second
    )


def _take_number(
    parts: _NameParts,
    text: str,
    *,
    continues: bool,
    as_word: str,
) -> None:
    """Adds numbers to the version. Numbers after a later word belong to the family's words."""
    if parts.numbers and not continues:
        parts.words.append(as_word)
        return
    parts.numbers += [int(part) for part in text.split(".")]
    parts.in_version = True
