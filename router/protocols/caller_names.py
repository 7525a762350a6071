"""Finds the person or conversation that a request names, and a conversation's opening.

Both become sticky keys (`router.request.client_directives`). Many products name callers in
headers and fields of their own; the tables below list them. A name is only compared and
hashed: the router does not interpret it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from router.frame.replies import Header

# Ranks of names: a person's name precedes a conversation's. A metadata header may contain both.
_PERSON_RANK: Final = 1
_METADATA_RANK: Final = 3
# Excludes headers of Microsoft and Amazon, because most of them name no caller.
_OWNER_PREFIX: Final = r"(?!x-ms-|x-amz)(?:[^\W_]*[-_.])*"
# One group per rank. Sources: Open WebUI, LiteLLM, Langfuse, Helicone, Claude Code, Codex and
# similar clients. Cloudflare, Portkey, TrueFoundry and Bedrock have metadata headers.
_HEADER_NAMES: Final = re.compile(
    rf"({_OWNER_PREFIX}(?:user|customer)[-_.]?(?:id|email)|(?:x-)?_?(?:end[-_.]|forwarded-)?user"
    r"|x-forwarded-email|x-auth-request-(?:user|email)|x-ms-client-principal-id)"
    rf"|({_OWNER_PREFIX}(?:session|conversation|chat|thread)[-_.]?id|x-session-affinity|x-opencode-session"
    r"|helicone-property-(?:session|conversation))"
    r"|((?:[^\W_]+-)+metadata|baggage)"
)
# Prefix of a sticky key that the router derives from a conversation's opening.
OPENING: Final = "opening:"
_CAMEL_BOUNDARY: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_IN_METADATA: Final = ""
_PERSON_KINDS: Final = frozenset({"safety_identifier", "user"})
# Paths in a body that name its caller, and the kind of name.
_BODY_NAMES: Final = (
    ("safety_identifier", "safety_identifier"),
    ("user", "user"),
    ("providerOptions.gateway.user", "user"),  # Vercel's gateway
    ("user_security_context.end_user_id", "user"),  # Azure
    ("orq.identity.id", "user"),
    ("metadata", _IN_METADATA),
    ("litellm_metadata", _IN_METADATA),
    ("requestMetadata", _IN_METADATA),  # Bedrock
    ("conversation", "conversation"),
    ("conversation.id", "conversation"),
    ("litellm_session_id", "conversation"),
    ("session_id", "conversation"),
    ("orq.thread.id", "conversation"),
)
_PATHS: Final = tuple(
    (field, inner, kind)
    for (field, *inner), kind in ((p.split("."), k) for p, k in _BODY_NAMES)
)
_BODY_FIELDS: Final = frozenset(field for field, _, _ in _PATHS)
_USER_ALONE: Final = frozenset({"user"})
_NO_CALLERS: Final[Sequence[str]] = ()
# Length of the system prompt's part that distinguishes applications.
RULES_CHARS: Final = 300
# Claude Code writes its version and a changing part into the first line of its system prompt.
BILLING: Final = "x-anthropic-billing-header:"
# Words that change between the turns of a conversation: names of days and months in the
# languages of most prompts. A word with a digit changes, too (dates, times, ids, counters).
_DAY_AND_MONTH_WORDS: Final = """am pm
    mon tue wed thu fri sat sun jan feb mar apr may jun jul aug sep sept oct nov dec
    monday tuesday wednesday thursday friday saturday sunday
    january february march april june july august september october november december
    montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag
    januar februar märz mai juni juli oktober dezember
    lundi mardi mercredi jeudi vendredi samedi dimanche
    janvier février mars avril juin juillet août septembre octobre novembre décembre
    lunes martes miércoles jueves viernes sábado domingo
    enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
    lunedì martedì mercoledì giovedì venerdì sabato domenica gennaio febbraio aprile maggio
    giugno luglio settembre ottobre dicembre
    segunda-feira terça-feira quarta-feira quinta-feira sexta-feira
    janeiro fevereiro março maio junho julho setembro outubro novembro dezembro
    maandag dinsdag woensdag donderdag vrijdag zaterdag zondag maart mei augustus
    понедельник вторник среда четверг пятница суббота воскресенье
    января февраля марта апреля мая июня июля августа сентября октября ноября декабря
"""
_DAYS_AND_MONTHS: Final = frozenset(_DAY_AND_MONTH_WORDS.split())
_PUNCTUATION: Final = ".,;:!?()[]{}\"'`*<>|#-"
# Changing parts within a word, for scripts without spaces and words with punctuation.
_CHANGING_PARTS: Final = re.compile(
    r"\d+|(?:星期|周)[一二三四五六日天]|[月火水木金土日]曜日|[월화수목금토일]요일"
    r"|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day\b|\b(?:mon|tue|wed|thu|fri|sat|sun)\b"
    r"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)(?:[a-z]{3,6})?\b",
    re.IGNORECASE,
)
_DIGIT: Final = re.compile(r"\d")


def header_caller(headers: Sequence[Header]) -> bytes | None:
    """Returns the name of the caller in the headers; None without one.

    Args:
        headers: names in lower case.

    A person precedes a conversation. Among equal ranks, the shortest header name precedes, so
    that all workers choose the same caller.
    """
    names = _header_names(headers)
    return min(names)[2].encode("latin-1") if names else None


def header_person(headers: Sequence[Header]) -> bytes | None:
    """Returns the name of the person in the headers; None without one.

    Args:
        headers: see `header_caller`.
    """
    names = [name for name in _header_names(headers) if name[0] == _PERSON_RANK]
    return min(names)[2].encode("latin-1") if names else None


def header_persons(headers: Sequence[Header]) -> Sequence[str]:
    """Lists all names of persons in the headers.

    Args:
        headers: see `header_caller`.
    """
    return [name for rank, _, name in _header_names(headers) if rank == _PERSON_RANK]


def _header_names(headers: Sequence[Header]) -> list[tuple[int, int, str]]:
    names: list[tuple[int, int, str]] = []
    for name, value in headers:
        rank = _find_rank(name) if value else 0
        if rank == _METADATA_RANK:
            names += _metadata_names(_read_metadata(value.decode("latin-1")))
        elif rank:
            names.append((rank, len(name), value.decode("latin-1")))
    return names


def body_callers(fields: Mapping[str, object]) -> Sequence[str]:
    """Lists the callers that a body names, in a fixed order.

    An entry has its kind before the name, such as `user:…`.

    Args:
        fields: the body's top level.
    """
    fields_with_names = _BODY_FIELDS.intersection(fields)
    if not fields_with_names:
        return _NO_CALLERS
    if fields_with_names == _USER_ALONE:  # the most frequent case
        user = fields["user"]
        return (f"user:{user}",) if user and isinstance(user, str) else _NO_CALLERS
    callers = []
    for field, inner, kind in _PATHS:
        if field not in fields_with_names:
            continue
        value = fields[field]
        for inner_field in inner:
            value = value.get(inner_field) if isinstance(value, Mapping) else None
        if kind and isinstance(value, str) and value:
            callers.append(f"{kind}:{value}")
        elif not kind and isinstance(value, Mapping):
            callers += [
                f"{'user' if rank == _PERSON_RANK else 'conversation'}:{caller}"
                for rank, _, caller in sorted(_metadata_names(value))
            ]
    return callers


def body_persons(fields: Mapping[str, object]) -> Sequence[object]:
    """Lists the values, of any type, that a body gives for persons.

    Args:
        fields: the top level.
    """
    persons: list[object] = []
    for field, inner, kind in _PATHS:
        value = fields.get(field)
        for inner_field in inner:
            value = value.get(inner_field) if isinstance(value, Mapping) else None
        if kind in _PERSON_KINDS:
            persons.append(value)
        elif not kind and isinstance(value, Mapping):
            persons += [
                person
                for name, person in value.items()
                if _find_rank(_as_header(name)) == _PERSON_RANK
            ]
    return persons


@lru_cache(maxsize=1024)
def _find_rank(name: bytes) -> int:
    """Returns the rank of a header: 1 for a person, 2 for a conversation, 3 for metadata.

    Returns 0 for all other headers.
    """
    match = _HEADER_NAMES.fullmatch(name.decode("latin-1"))
    return (match.lastindex or 0) if match else 0


def _metadata_names(metadata: Mapping[str, object]) -> Sequence[tuple[int, int, str]]:
    names = []
    for name, value in metadata.items():
        header_form = _as_header(name)
        rank = _find_rank(header_form) if isinstance(value, str) and value else 0
        if 0 < rank < _METADATA_RANK:
            names.append((rank, len(header_form), str(value)))
    return names


def _as_header(name: str) -> bytes:
    """Writes a member's name like a header's: `userId` is `user_id`."""
    return _CAMEL_BOUNDARY.sub("_", str(name)).lower().encode("latin-1", "replace")


def _read_metadata(text: str) -> Mapping[str, object]:
    """Reads a metadata header: a JSON object, or the pairs of W3C's baggage.

    Returns an empty mapping for other JSON.
    """
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        pairs = (entry.partition(";")[0].partition("=") for entry in text.split(","))
        return {name.strip(): value.strip() for name, _, value in pairs}
    members = parsed.items() if isinstance(parsed, dict) else ()
    return {name: str(value) for name, value in members if value.__class__ in (int, str)}


def conversation_opening(
    messages: object,
    rules: object = None,
    skipped: int = 0,
) -> list[object]:
    """Returns the user's first message and the stable part of the system prompts before it.

    Args:
        rules: a system prompt outside `messages`.
        skipped: how many user messages belong to a template.
    """
    if not isinstance(messages, list):
        return []
    prompts = [_stable_rules(rules)] if rules else []
    questions = []
    for message in messages:
        if not isinstance(message, dict):
            return []
        role = message.get("role")
        content = message.get("content")
        if role in ("system", "developer"):
            prompts.append(_stable_rules(content))
        elif role == "user":
            questions.append(("user", content))
            if len(questions) > skipped:
                rules_text = "".join(prompts)[:RULES_CHARS]
                before = [("system", rules_text)] if rules_text else []
                return [*before, *questions]
    return []


def _stable_rules(content: object) -> str:
    """Returns the part of a system prompt that all turns of a conversation share.

    Dates, times, numbers and ids become `#`, because agents write the current ones into
    each prompt.
    """
    text = "\n".join(_iter_texts(content))
    if text.startswith(BILLING):
        text = text.partition("\n")[2]
    # A changing word may change its length, so the final cut follows the replacements.
    words = text[: 3 * RULES_CHARS // 2].split()
    for number, word in enumerate(words):
        word_alone = word.strip(_PUNCTUATION)
        if word_alone.lower() in _DAYS_AND_MONTHS:
            words[number] = "#"
        elif not (word_alone.isascii() and word_alone.isalpha()):
            has_digit = word.isascii() and _DIGIT.search(word)
            words[number] = "#" if has_digit else _CHANGING_PARTS.sub("#", word)
    return " ".join(words)[:RULES_CHARS]


def _iter_texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, dict) else None
            if isinstance(text, str):
                yield text
