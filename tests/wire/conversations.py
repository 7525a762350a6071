"""Ten conversations that every protocol must carry, whole and streamed: data."""

from dataclasses import dataclass, field
from typing import Any, Final

from tests.wire.server import Json, Reading, Reply, Turn, Usage

PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


@dataclass(frozen=True)
class Step:
    """One request and its answer. more: messages after those before, and after the last answer;
    `$0` in a tool's result stands for the id of that answer's first call. options: of the
    request. reading: as the provider must have read it, but for what `without` names.
    """

    more: tuple[Json, ...]
    reply: Reply
    reading: Reading
    options: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Conversation:
    """without: by kind, what it has no word for, and is told to the caller."""

    name: str
    steps: tuple[Step, ...]
    without: dict[str, tuple[str, ...]] = field(default_factory=dict)


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def tool(name: str, *fields: str) -> Json:
    properties = {name: {"type": "string"} for name in fields}
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(fields),
    }
    function = {
        "name": name,
        "description": f"Looks up {name}.",
        "parameters": schema,
    }
    return {"type": "function", "function": function}


def result(number: int, text: str) -> Json:
    return {
        "role": "tool",
        "tool_call_id": f"${number}",
        "content": text,
    }


WEATHER: Final = tool("weather", "city")
TIME: Final = tool("local_time", "city")
OSLO: Final = ("weather", {"city": "Oslo"})
LIMA: Final = ("weather", {"city": "Lima"})
SCHEMA: Final[Json] = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "age": {"type": "integer"},
            },
            "required": ["name", "age"],
            "additionalProperties": False,
        },
    },
}
MARK: Final = {"cache_control": {"type": "ephemeral"}}
HELLO: Final = Turn("user", "Hello?")


def _marked(text: str) -> list[Json]:
    return [
        {
            "type": "text",
            "text": text,
            **MARK,
        }
    ]


PLAIN: Final = Conversation(
    "plain, with a system message",
    (
        Step(
            ({"role": "system", "content": "Be brief."}, user("Hello?")),
            Reply("Good day to you."),
            Reading(
                "Be brief.",
                (HELLO,),
                limit=64,
                temperature=0.5,
            ),
            {"max_completion_tokens": 64, "temperature": 0.5},
        ),
    ),
)
SEVERAL: Final = Conversation(
    "several turns, system and developer messages",
    (
        Step(
            (
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": "Be kind."},
                user("Hello?"),
            ),
            Reply("Good day."),
            Reading("Be brief.\nBe kind.", (HELLO,)),
        ),
        Step(
            (user("And now?"),),
            Reply("Good night."),
            Reading(
                "Be brief.\nBe kind.",
                (
                    HELLO,
                    Turn("assistant", "Good day."),
                    Turn("user", "And now?"),
                ),
            ),
        ),
    ),
)
IMAGE: Final = Conversation(
    "an image",
    (
        Step(
            (
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is it?"},
                        {
                            "type": "image_url",
                            "image_url": {"url": f"data:image/png;base64,{PIXEL}"},
                        },
                    ],
                },
            ),
            Reply("One pixel."),
            Reading("", (Turn("user", "What is it?", 1),)),
        ),
    ),
)
ONE_TOOL: Final = Conversation(
    "one tool and its result",
    (
        Step(
            (user("Oslo?"),),
            Reply("I will look.", calls=(OSLO,), stop="tools"),
            Reading("", (Turn("user", "Oslo?"),), ("weather",)),
            {"tools": [WEATHER]},
        ),
        Step(
            (result(0, "Snow, −3 °C"),),
            Reply("It snows in Oslo."),
            Reading(
                "",
                (
                    Turn("user", "Oslo?"),
                    Turn("assistant", "I will look.", calls=(OSLO,)),
                    Turn("tool", results=("Snow, −3 °C",)),
                ),
                ("weather",),
            ),
            {"tools": [WEATHER]},
        ),
    ),
)
PARALLEL: Final = Conversation(
    "parallel tool calls and their results",
    (
        Step(
            (user("Both?"),),
            Reply(calls=(OSLO, LIMA), stop="tools"),
            Reading("", (Turn("user", "Both?"),), ("weather", "local_time")),
            {"tools": [WEATHER, TIME], "parallel_tool_calls": True},
        ),
        Step(
            (
                result(1, "Sun"),
                result(0, "Snow"),
                user("So?"),
            ),
            Reply("Snow and sun."),
            Reading(
                "",
                (
                    Turn("user", "Both?"),
                    Turn("assistant", calls=(OSLO, LIMA)),
                    Turn("tool", results=("Sun", "Snow")),
                    Turn("user", "So?"),
                ),
                ("weather", "local_time"),
            ),
            {"tools": [WEATHER, TIME], "parallel_tool_calls": True},
        ),
    ),
)


def _choice(choice: Any, read: str) -> Step:
    return Step(
        (user("Oslo?"),),
        Reply(calls=(OSLO,), stop="tools") if read != "none" else Reply("No."),
        Reading(
            "",
            (Turn("user", "Oslo?"),),
            ("weather", "local_time"),
            choice=read,
        ),
        {"tools": [WEATHER, TIME], "tool_choice": choice},
    )


FORCED: Final = Conversation(
    "a named tool",
    (_choice({"type": "function", "function": {"name": "weather"}}, "weather"),),
)
REQUIRED: Final = Conversation("a required tool", (_choice("required", "any"),))
NO_TOOL: Final = Conversation("tools that must not be called", (_choice("none", "none"),))
STRUCTURED: Final = Conversation(
    "structured output",
    (
        Step(
            (user("Who?"),),
            Reply('{"name":"Ada","age":36}'),
            Reading("", (Turn("user", "Who?"),), schema=True),
            {"response_format": SCHEMA},
        ),
    ),
)
REASONING: Final = Conversation(
    "reasoning, with a tool's turn",
    (
        Step(
            (user("Oslo?"),),
            Reply(
                reasoning="They ask for Oslo. I look.",
                calls=(OSLO,),
                stop="tools",
                usage=Usage(11, 40, reasoning=30),
            ),
            Reading("", (Turn("user", "Oslo?"),), ("weather",), thinks=True),
            {"tools": [WEATHER], "reasoning_effort": "low"},
        ),
        Step(
            (result(0, "Snow"),),
            Reply(
                "Snow.",
                reasoning="It snows.",
                usage=Usage(50, 9, reasoning=4),
            ),
            Reading(
                "",
                (
                    Turn("user", "Oslo?"),
                    Turn("assistant", calls=(OSLO,), signed=("it",)),
                    Turn("tool", results=("Snow",)),
                ),
                ("weather",),
                thinks=True,
            ),
            {"tools": [WEATHER], "reasoning_effort": "low"},
        ),
    ),
)
CACHING: Final = Conversation(
    "marks for the prompt's cache",
    (
        Step(
            (
                {
                    "role": "system",
                    "content": _marked("A long text of rules."),
                },
                {"role": "user", "content": _marked("Hello?")},
            ),
            Reply(
                "Good day.",
                usage=Usage(
                    2000,
                    5,
                    cached=1500,
                    written=100,
                ),
            ),
            Reading("A long text of rules.", (HELLO,), marks=2),
        ),
    ),
    {
        "gemini": ("cache_control",),
        "vertex": ("cache_control",),
        "openai": ("cache_control",),
    },
)
STOPS: Final = Conversation(
    "a length stop, stop sequences, text of many scripts in small pieces",
    (
        Step(
            (user("Sing, 世界!"),),
            Reply("Ærlig talt 😀👩‍👩‍👧 — 世界 \u2028 e\u0301nd", stop="length"),
            Reading(
                "",
                (Turn("user", "Sing, 世界!"),),
                stops=("###", "END"),
                limit=2000,
            ),
            {"max_completion_tokens": 2000, "stop": ["###", "END"]},
        ),
        Step(
            (user("More"),),
            Reply("La la", stop="sequence"),
            Reading(
                "",
                (
                    Turn("user", "Sing, 世界!"),
                    Turn(
                        "assistant",
                        "Ærlig talt 😀👩‍👩‍👧 — 世界 \u2028 e\u0301nd",
                    ),
                    Turn("user", "More"),
                ),
                stops=("END",),
            ),
            {"stop": "END"},
        ),
    ),
)
ALL: Final = (
    PLAIN,
    SEVERAL,
    IMAGE,
    ONE_TOOL,
    PARALLEL,
    FORCED,
    REQUIRED,
    NO_TOOL,
    STRUCTURED,
    REASONING,
    CACHING,
    STOPS,
)
