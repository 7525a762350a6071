"""What a simulated model says by its script, and takes from the conversation for it."""

import pytest

from evals.sim.profiles import Profile, change_profile, find_line
from harness.domain.errors import InputError

SCRIPT = [
    {"newest": "found", "earlier": r"order (?P<order>\S+)", "text": "$order is found."},
    {"newest": r"order (?P<order>\S+)", "tool": "find", "arguments": {"ids": ["$order"]}},
]


def scripted() -> Profile:
    return change_profile(Profile("m"), {"script": SCRIPT}, place="here")


def test_the_first_line_that_fits_is_said_with_what_the_conversation_has() -> None:
    call = find_line(scripted().script, ["Where is order A-1?"], {"find"})
    text = find_line(scripted().script, ["Where is order A-1?", "", "found it"], {"find"})

    assert call is not None
    assert (call.tool, call.arguments) == ("find", {"ids": ["A-1?"]})
    assert text is not None
    assert text.text == "A-1? is found."


def test_a_model_that_was_not_shown_the_message_says_nothing_of_it() -> None:
    assert find_line(scripted().script, ["found it"], {"find"}) is None


def test_a_tool_that_is_not_offered_is_not_called() -> None:
    assert find_line(scripted().script, ["Where is order A-1?"], set()) is None


@pytest.mark.parametrize(
    "script",
    ["a text", ["a text"], [{"newest": "("}], [{"text": "a", "tool": "b"}], [{"unknown": "a"}]],
)
def test_a_script_that_is_none_is_refused_with_its_place(script: object) -> None:
    with pytest.raises(InputError, match="here: script"):
        change_profile(Profile("m"), {"script": script}, place="here")
