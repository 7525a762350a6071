"""Removes fences, markup and quotes from answers, repairs their JSON, and counts words.

Each removed layer and each repair has the name of the form rule that the answer breaks.

Only one thread at a time parses Python source. CPython before 3.11.8 and 3.12.2 counts a
tree's depth for all threads together (gh-106905). If the garbage collector runs Python code
during the count, another thread may begin a second tree. One of the two then fails with
`SystemError: AST constructor recursion depth mismatch`.
"""

import ast
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

FENCE = "```"
# Scorers use possessive patterns, because a broken model may write thousands of spaces.
LANGUAGE = re.compile(r"[^\S\n]*+[\w+-]*+[^\S\n]*+(?:\n|(?=[{\[\"]))")
MARKUP = re.compile(r"^(?:[*_#`>\s]|-\s)++|(?<![*_`\s])[*_`\s]++$")
QUOTES = "\"'“”‘’«»"


def inside_fence(text: str) -> str | None:
    """Returns the content of the only code fence; None without one, or with several."""
    parts = text.split(FENCE)
    if (len(parts) - 1) // 2 != 1:
        return None
    named = LANGUAGE.match(parts[1])
    return parts[1][named.end() if named else 0 :].strip()


def unwrap_layers(answer: str) -> Iterator[tuple[str, str]]:
    """Yields (rule, text) after each removed layer, the outermost layer first."""
    text = answer.strip()
    fenced = inside_fence(text)
    if fenced is not None:
        text = fenced
        yield "code_fence", text
    for rule, peeled in (
        ("markup", MARKUP.sub("", text)),
        ("quotes", MARKUP.sub("", text).strip(QUOTES).strip()),
        (
            "trailing_punctuation",
            MARKUP.sub("", text).strip(QUOTES).rstrip(".!;:, ").strip(QUOTES),
        ),
    ):
        if peeled != text:
            text = peeled
            yield rule, text


def non_blank_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


# Closing quotes, brackets and markup may follow the mark: "Go on." He said (so I hear.)
# Possessive, and only from a run's first mark, so that a row of dots takes linear time.
SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++[\"'”’»)\]*_]*+(?=\s|$)")


def sentences(text: str) -> int:
    """Counts runs of . ! ? before white space, the end, or a closing quote or bracket.

    Text after the last run does not count.
    """
    return len(SENTENCE_END.findall(text))


def words(text: str) -> int:
    return sum(1 for part in text.split() if any(char.isalnum() for char in part))


def word_count(text: str, word: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def paragraphs(text: str) -> list[str]:
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip():
            blocks[-1].append(line)
        else:
            blocks.append([])
    return ["\n".join(block).strip() for block in blocks if block]


def first_word(text: str) -> str:
    found = re.search(r"\w+", text)
    return found.group() if found else ""


_ONE_AT_A_TIME: Final = threading.Lock()


def parse_source(source: str) -> ast.Module:
    """Parses Python code under the lock. Raises SyntaxError, or ValueError for null bytes."""
    with _ONE_AT_A_TIME:
        return ast.parse(source)


def parse_literal(text: str) -> object:
    """Returns the value of a Python literal. Raises as `ast.literal_eval`."""
    with _ONE_AT_A_TIME:
        return ast.literal_eval(text)


LONGEST = 200_000  # characters; the repair ignores a longer answer
MOST_PARTS = 20  # parts in braces that the repair searches
# An open string goes to the end, else each quote would start another search.
STRINGS = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)', re.DOTALL)
TRAILING_COMMA = re.compile(r",(\s*[}\]])")
BARE_KEY = re.compile(r"([{,]\s*)([A-Za-z_]\w*)(\s*:)")


def loads(text: str) -> Any:
    def refuse(_constant: str) -> None:
        raise ValueError

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


def json_object(text: str) -> dict[str, Any] | None:
    found = loads(text)
    return found if isinstance(found, dict) else None


def unfenced(text: str) -> str:
    fenced = inside_fence(text)
    return text if fenced is None else fenced


def braces_only(text: str) -> str:
    """Returns the first part in balanced braces that is a JSON object.

    Otherwise the longest part in balanced braces, because braces in prose are short.
    Otherwise the text from the first `{` to the last `}`.
    """
    found: list[str] = []
    start = text.find("{")
    while start >= 0 and len(found) < MOST_PARTS:
        part = balanced(text, start)
        if not part:
            break
        if json_object(part):
            return part
        found.append(part)
        start = text.find("{", start + len(part))
    first, last = text.find("{"), text.rfind("}")
    if found:
        return max(found, key=len)
    return text[first : last + 1] if 0 <= first < last else text


def balanced(text: str, start: int) -> str:
    depth, in_string, escaped = 0, False, False
    for at in range(start, len(text)):
        char = text[at]
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            in_string = not in_string
        elif not in_string and char in "{}":
            depth += 1 if char == "{" else -1
            if depth == 0:
                return text[start : at + 1]
    return ""


def unescaped(text: str) -> str:
    r"""Unescapes an object inside a JSON string, or an object with `\"` for every quote."""
    inner = loads(text)
    if isinstance(inner, str):
        return inner.strip()
    return (
        text.replace('\\"', '"').replace("\\\\", "\\") if re.match(r'\{\s*\\"', text) else text
    )


def outside_strings(text: str, mend: Callable[[str], str]) -> str:
    parts, end = [], 0
    for string in STRINGS.finditer(text):
        parts += [mend(text[end : string.start()]), string.group()]
        end = string.end()
    return "".join([*parts, mend(text[end:])])


def without_trailing_commas(text: str) -> str:
    return outside_strings(text, lambda part: TRAILING_COMMA.sub(r"\1", part))


def from_python(text: str) -> str:
    try:
        return json.dumps(parse_literal(text), allow_nan=False)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def quoted_keys(text: str) -> str:
    return BARE_KEY.sub(r'\1"\2"\3', text)


REPAIRS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("code_fence", unfenced),
    ("double_escaped", unescaped),
    ("extra_prose", braces_only),
    ("double_escaped", unescaped),
    ("trailing_comma", without_trailing_commas),
    ("single_quotes", from_python),
    ("bare_keys", quoted_keys),
)


def repaired(answer: str) -> tuple[dict[str, Any], str] | None:
    """Returns the object and its broken rules, joined by `+`; None without an object."""
    text = answer.strip()
    if len(text) > LONGEST:
        return None
    for rules, mended in steps(text):
        found = json_object(mended)
        if found is not None:
            return found, rules
    return None


def steps(text: str) -> Iterator[tuple[str, str]]:
    done: list[str] = []
    yield "", text
    for name, repair in REPAIRS:
        mended = repair(text)
        if mended == text:
            continue
        if name == "extra_prose":
            name = "leading_prose" if text.endswith(mended) else "trailing_prose"  # noqa: PLW2901 - named by its place
        text, done = mended, [*done, name] if name not in done else done
        yield "+".join(done), text
