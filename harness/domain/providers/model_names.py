"""A model's name is parsed into its family, version and date, and compared with other
spellings, as is the host of its provider. Pure.

`claude-3-5-sonnet-20241022` is the family `claude-sonnet` at version 3.5, of 22 October 2024.
Versions are written `4-5`, `4.5` or `v4.5`, and mean the same. Names and hosts have one
spelling here (`normalize_model_name`, `provider_host`), so that a model under another spelling
is known for the same, and its looks at a suite count together.
"""

import re
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import inet_aton
from typing import Final
from urllib.parse import urlsplit

from harness.domain.evals.pins import Sighting
from harness.domain.routing.target import Provider, Target

LOOPBACK: Final = "127.0.0.1"
LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain"})
NAT64: Final = ip_network("64:ff9b::/96")  # RFC 6052


def provider_host(provider: Provider | None) -> str:
    """Returns the host of a provider's API, with a port where one is given; empty for a
    provider that is gone.
    """
    if provider is None:
        return ""
    try:
        place = urlsplit(provider.api_base)
        name, port = (place.hostname or "").rstrip("."), place.port
    except ValueError:
        return provider.api_base.casefold()
    standard = {"http": 80, "https": 443}.get(place.scheme)
    one = _one_spelling(name.casefold())
    return one if port in (None, standard) else f"{one}:{port}"


def _one_spelling(name: str) -> str:
    """An address has many, such as `127.1`, `2130706433` and `::ffff:127.0.0.1`; so has a name
    with letters beyond ASCII. All of this machine's own are one.
    """
    with suppress(UnicodeError):
        name = unicodedata.normalize("NFKC", name).encode("idna").decode().casefold()
    if name in LOOPBACK_NAMES or name.endswith(".localhost"):
        return LOOPBACK
    address = _address(name)
    if address is None:
        return name
    return LOOPBACK if address.is_loopback or address.is_unspecified else str(address)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(name)
    except ValueError:
        try:
            # As the system's resolver reads numbers; a name is none.
            return IPv4Address(inet_aton(name))
        except (OSError, UnicodeError):
            return None
    if not isinstance(found, IPv6Address):
        return found
    carried = IPv4Address(found.packed[-4:]) if found in NAT64 else found.ipv4_mapped
    return carried or found


def normalize_model_name(name: str) -> str:
    """Gives names that look alike one spelling: case, width, dashes, invisible characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = (char for char in folded if unicodedata.category(char) != "Cf")
    return "".join("-" if unicodedata.category(char) == "Pd" else char for char in seen).strip()


def known_model_names(target: Target, served: Iterable[Sighting]) -> frozenset[str]:
    """The target's model name and those in its provider's answers, in one spelling each."""
    told = (sighting.served.model for sighting in served)
    return frozenset(normalize_model_name(name) for name in (target.model, *told) if name)


def same_host(one: str, other: str) -> bool:
    """Whether two hosts may be the same; one that is not known any more may be."""
    return not one or not other or one == other


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
_SIZE: Final = re.compile(r"^(?:[ae]?\d+(?:\.\d+)?(?:x\d+)?[bkm]|\d+x\d+b)$")


@dataclass(frozen=True, slots=True)
class ModelName:
    """Holds the parts of a model's name."""

    words: tuple[str, ...]  # of its family, in their order
    version: Version = ()  # without trailing zeros, empty for none
    # YYYYMMDD, with 00 for a day that is not said, or MMDD where no year is; 0 for none.
    date: int = 0
    preview: bool = False
    latest: bool = False  # an alias that moves with the newest

    @property
    def family(self) -> str:
        return "-".join(self.words)

    @property
    def rank(self) -> tuple[bool, Version, bool, int]:
        """Newer is greater. A preview is below every final one, an alias that moves below what
        stays. The name without a date stands for the newest of its version.
        """
        return not self.preview, self.version, not self.latest, self.date or 99_999_999


@dataclass
class _Reading:
    words: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    date: int = 0
    preview: bool = False
    latest: bool = False
    # Numbers belong together only while nothing stands between them.
    in_version: bool = False


def parse_model_name(name: str) -> ModelName:
    """Parses a model's name; any text has a reading. What is before the last slash, a vendor,
    is not part of it.
    """
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
        tuple(read.words), tuple(read.numbers), read.date, read.preview, read.latest
    )


def _dated(read: _Reading, found: re.Match[str]) -> str:
    year, month = found["y"] or found["y2"], found["m"] or found["m2"]
    read.date = int(f"{year}{month}{found['d'] or '00'}")
    return " "


def _take(read: _Reading, token: str) -> None:
    continues, read.in_version = read.in_version, False
    if not token.strip(".") or token in _SILENT:
        return
    if token in PREVIEW_WORDS:
        read.preview = True
    elif token == "latest":  # noqa: S105 - no secret
        read.latest = True
    elif stamp := _STAMP.match(token):
        read.date = read.date or _stamped(stamp)
    elif number := _NUMBER.match(token):
        _count(read, number[1], continues=continues, as_word=token)
    elif _SIZE.match(token):
        read.words.append(token)
    elif glued := _GLUED.match(token):
        read.words.append(glued[1])
        _count(read, glued[2], continues=False, as_word=glued[2])
    elif glued := _GLUED_WORD.match(token):
        read.words += [glued[1], glued[2]]
    else:
        read.words.append(token)


def _stamped(stamp: re.Match[str]) -> int:
    a, b = int(stamp["a"]), int(stamp["b"])
    return 20_000_000 + a * 10_000 + b * 100 if 23 <= a <= 49 and 1 <= b <= 12 else a * 100 + b


def _count(read: _Reading, text: str, *, continues: bool, as_word: str) -> None:
    """A first run of numbers is the version; a later one tells models apart, as a word."""
    if read.numbers and not continues:
        read.words.append(as_word)
        return
    read.numbers += [int(part) for part in text.split(".")]
    read.in_version = True
