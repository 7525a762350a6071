"""Redacts a JSON value before Swapproof stores any part of it. Pure.

Equal matches within one value get the same placeholder, such as `[EMAIL_1]`. The rules also
apply to object keys, numbers, and JSON inside texts. The finders prefer a false match to a
missed match; docs/how-to/capture.md lists their limits.
"""

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from harness.frame.errors import InputError
from harness.frame.matching import BoundedPattern
from harness.frame.plain_data import digest

Span = tuple[int, int]
# Increase this version when a finder changes; each record stores it with its rules.
FINDERS_VERSION: Final = 1

_KEY: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)"
    r"|(?<![A-Za-z0-9])(?:"
    r"(?:sk|rk|pk)[-_][A-Za-z0-9_-]{16,}|sg-mgmt-[A-Za-z0-9_-]{16,}"
    r"|AIza[A-Za-z0-9_-]{30,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|(?:hf|gsk|npm|r8)_[A-Za-z0-9]{20,}|xai-[A-Za-z0-9]{20,}|pypi-[A-Za-z0-9_-]{20,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    r"|[Bb]earer\s+[A-Za-z0-9._~+/=-]{16,}"
    r")",
    re.DOTALL,
)
_EMAIL: Final = re.compile(
    r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}(?:@|%40)"
    r"(?:[\w-]{1,63}\.){1,8}[^\W\d_][\w-]{1,62}"
)
# A lookahead finds overlapping candidates, because a longer match may hide an IBAN.
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])(?=([A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}))")
_SPACE: Final = r"[ \u00a0.-]"
_CARD: Final = re.compile(
    rf"(?<!\d\.)(?<!\d)\d{{13,}}|(?<!\d)\d{{4}}({_SPACE})\d{{4}}\1\d{{4}}\1\d{{1,4}}(?:\1\d{{1,3}})?(?!\d)"
    rf"|(?<!\d)\d{{4}}({_SPACE})\d{{6}}\2\d{{5}}(?!\d)"
)
_IPV4: Final = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\d|\.\d)")
_IPV6: Final = re.compile(r"(?<![\w:])[0-9A-Fa-f:]{2,39}(?![\w:])")
_GAP: Final = r"[ \u00a0./()-]"
_PHONE: Final = re.compile(
    rf"(?<![\w+])(?:\+|00)[1-9](?:{_GAP}{{0,3}}\d){{6,14}}(?!\d)"
    rf"|(?<![\w.,/:+-])\(?0\d{{1,5}}\)?(?:{_GAP}{{1,3}}\d{{2,}}){{1,5}}(?!\d)"
    r"|(?<![\w.,/:+-])0[1-9]\d{7,11}(?![\w.,]\d)(?!\d)"
    r"|(?<![\w.,/+-])(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?!\w)"
)
_DATE: Final = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}")
# ISO 13616, registry of July 2023: the whole length by country.
_IBAN_LENGTHS: Final = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27"
    " DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22"
    " IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19"
    " MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31"
    " SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
)
IBAN_LENGTHS: Final[Mapping[str, int]] = {
    part[:2]: int(part[2:]) for part in _IBAN_LENGTHS.split()
}
MIN_HEX_DIGITS: Final = 4  # `::` and `a::b` are code more often than addresses
PHONE_DIGITS: Final = range(7, 16)  # ITU-T E.164: at most 15


def find_keys(text: str) -> Iterator[Span]:
    """Finds keys of Swapproof (`sk-sg-…`) and of providers, tokens and private keys."""
    for match_ in _KEY.finditer(text):
        # Skips words such as "risk-averse-investment-plan".
        if any(character.isdigit() or character.isupper() for character in match_.group()[3:]):
            yield match_.span()


def find_emails(text: str) -> Iterator[Span]:
    return (match_.span() for match_ in _EMAIL.finditer(text))


def find_ibans(text: str) -> Iterator[Span]:
    """Finds IBANs of a known country and length, with their check digits (ISO 7064, mod 97)."""
    for match_ in _IBAN.finditer(text):
        candidate = match_.group(1)
        places = [i for i, character in enumerate(candidate) if character.isalnum()]
        length = IBAN_LENGTHS.get(candidate[:2].upper(), len(places) + 1)
        if length > len(places):
            continue
        end = places[length - 1] + 1
        compact = "".join(
            character for character in candidate[:end] if character.isalnum()
        ).upper()
        if (
            int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4]))
            % 97
            == 1
        ):
            yield match_.start(), match_.start() + end


def find_cards(text: str) -> Iterator[Span]:
    """Finds card numbers: 13 to 19 digits, maybe grouped, with Luhn's digit (ISO 7812)."""
    for match_ in _CARD.finditer(text):
        digits = [int(character) for character in match_.group() if character.isdecimal()]
        if len(digits) <= 19:
            if _passes_luhn(digits):
                yield match_.span()
        elif any(_passes_luhn(digits[i : i + 16]) for i in range(len(digits) - 15)):
            yield match_.span()


def find_ip_addresses(text: str) -> Iterator[Span]:
    addresses = [match_ for match_ in _IPV4.finditer(text) if _is_ipv4(match_.group())]
    candidates = (match_ for match_ in _IPV6.finditer(text) if match_.group().count(":") > 1)
    addresses += [match_ for match_ in candidates if _is_ipv6(match_.group())]
    return iter(sorted(match_.span() for match_ in addresses))


def find_phones(text: str) -> Iterator[Span]:
    """Finds phone numbers with `+`, `00` or a leading 0, or in the groups of North America."""
    for match_ in _PHONE.finditer(text):
        digits = sum(character.isdecimal() for character in match_.group())
        if digits in PHONE_DIGITS and not _DATE.fullmatch(match_.group()):
            yield match_.span()


def _passes_luhn(digits: list[int]) -> bool:
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return any(digits) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_ipv4(text: str) -> bool:
    return all(int(part) < 256 for part in text.split("."))


def _is_ipv6(text: str) -> bool:
    if sum(character != ":" for character in text) < MIN_HEX_DIGITS:
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


# In the order in which the redactor applies them.
PII_FINDERS: Final[Mapping[str, Callable[[str], Iterator[Span]]]] = {
    "key": find_keys,
    "email": find_emails,
    "iban": find_ibans,
    "card": find_cards,
    "ip": find_ip_addresses,
    "phone": find_phones,
}


# Beyond this depth, the redactor treats JSON inside JSON as text.
MAX_JSON_DEPTH: Final = 8
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_REQUIRED_FINDER: Final = "key"


@dataclass(frozen=True, slots=True)
class RedactionRule:
    """A redaction rule of the user. Raises InputError if it matches the empty text."""

    name: str
    pattern: str  # in the syntax of Python's `re`
    replacement: str = ""  # if empty, a placeholder such as `[NAME_1]`

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in PII_FINDERS:
            raise InputError(
                f"redaction rule {self.name!r}: a name is lower case, digits and _, and not "
                f"{', '.join(PII_FINDERS)}"
            )
        try:
            empty = BoundedPattern(self.pattern).matches_whole("")
        except InputError as error:
            raise InputError(f"redaction rule {self.name!r}: {error}") from None
        if empty:
            raise InputError(f"redaction rule {self.name!r}: it matches the empty text")


@dataclass(frozen=True, slots=True)
class RedactionResult:
    value: Any
    counts: Mapping[str, int]  # the number of matches by rule


@dataclass(frozen=True)
class Redactor:
    """Applies the user's redaction rules, then the built-in rules.

    off: names of built-in rules that do not apply; never `key`. Raises InputError for an
    invalid `off` or two rules of one name.
    """

    rules: tuple[RedactionRule, ...] = ()
    off: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.off:
            if name not in PII_FINDERS or name == _REQUIRED_FINDER:
                allowed_names = ", ".join(
                    finder for finder in PII_FINDERS if finder != _REQUIRED_FINDER
                )
                raise InputError(
                    f"redaction cannot turn off {name!r}; it can turn off {allowed_names}"
                )
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"there are two redaction rules {name!r}")

    @cached_property
    def digest(self) -> str:
        rules = [[rule.name, rule.pattern, rule.replacement] for rule in self.rules]
        return digest([FINDERS_VERSION, rules, sorted(set(self.off))])

    def redact(self, value: object) -> RedactionResult:
        """Returns a redacted copy of a JSON value. Raises PatternTooSlow; the caller must then
        store no part of the value.
        """
        redaction = _Redaction(self._steps)
        return RedactionResult(redaction.value(value, 0), dict(redaction.counts))

    @cached_property
    def _steps(self) -> "Sequence[_Step]":
        custom = [
            _Step(
                rule.name,
                BoundedPattern(rule.pattern).spans,
                rule.replacement,
            )
            for rule in self.rules
        ]
        built_in = [
            _Step(name, find) for name, find in PII_FINDERS.items() if name not in self.off
        ]
        return (*custom, *built_in)


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    find: Callable[[str], Iterable[Span]]
    replacement: str = ""


@dataclass(slots=True)
class _Redaction:
    """The redaction of one value."""

    steps: Sequence[_Step]
    counts: Counter[str] = field(default_factory=Counter)
    known: dict[tuple[str, str], int] = field(default_factory=dict)

    def value(self, value: object, depth: int) -> object:
        match value:
            case str():
                return self._redact_text(value, depth)
            case dict():
                return {
                    self._redact_plain(str(key)): self.value(inner, depth)
                    for key, inner in value.items()
                }
            case list() | tuple():
                return [self.value(inner, depth) for inner in value]
            case bool() | float() | None:
                return value
            case int():
                digits = str(value)
                redacted = self._redact_plain(digits)
                return value if redacted == digits else redacted
            case _:
                raise InputError(f"{type(value).__name__} is not a JSON type")

    def _redact_text(self, text: str, depth: int) -> str:
        if depth < MAX_JSON_DEPTH and text.lstrip()[:1] in ("{", "[", '"'):
            try:
                inner = json.loads(text)
            except (ValueError, RecursionError):
                pass
            else:
                if isinstance(inner, dict | list | str):
                    redacted = self.value(inner, depth + 1)
                    # Without a match, keeps the text's own form, such as its spaces.
                    return (
                        text if redacted == inner else json.dumps(redacted, ensure_ascii=False)
                    )
        return self._redact_plain(text)

    def _redact_plain(self, text: str) -> str:
        # In incomplete JSON, escapes would hide matches.
        if "\\u" in text:
            text = _ESCAPE.sub(lambda match_: chr(int(match_[1], 16)), text)
        for step in self.steps:
            text = self._replace_matches(text, step)
        return text

    def _replace_matches(self, text: str, step: _Step) -> str:
        pieces: list[str] = []
        place = 0
        for start, end in step.find(text):
            if start < place:
                continue
            pieces += [
                text[place:start],
                self._choose_placeholder(step, text[start:end]),
            ]
            place = end
        return text if not pieces else "".join((*pieces, text[place:]))

    def _choose_placeholder(self, step: _Step, match_text: str) -> str:
        self.counts[step.name] += 1
        if step.replacement:
            return step.replacement
        placeholders = sum(name == step.name for name, _ in self.known)
        number = self.known.setdefault((step.name, match_text), placeholders + 1)
        return f"[{step.name.upper()}_{number}]"
