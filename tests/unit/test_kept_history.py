"""An answer's history is cut into pieces, and joined again for whichever target comes next."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.conversation.kept_history import (
    CutHistory,
    HistoryItem,
    NotKept,
    cut_history,
    join_history,
    joined_body,
    list_pieces,
    list_references,
)
from router.conversation.native_histories import move_response

pytestmark = pytest.mark.req("A2", "G4")

Json = dict[str, Any]
MAKER = "abcdefgh"
QUESTION: Json = {"role": "user", "content": "How many?"}
ANSWER: Json = {
    "id": "resp_1",
    "status": "completed",
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": []},
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Four."}],
        },
        {
            "id": "fc_1",
            "type": "function_call",
            "call_id": "call_1",
            "name": "count",
            "arguments": "{}",
        },
    ],
}
TEXT, CALL = ANSWER["output"][1:]


def without_id(item: Json) -> Json:
    return {name: value for name, value in item.items() if name != "id"}


def cut(history: list[HistoryItem], answer: Json = ANSWER, user: str = "") -> CutHistory:
    found = cut_history(history, answer, MAKER, user)
    assert found is not None
    return found


def joined(request: Json, stored: Json) -> list[HistoryItem]:
    return [*join_history(request, stored, stored)]


def sent(request: Json, stored: Json) -> Json:
    body: Json = json.loads(joined_body(request, joined(request, stored)))
    return body


STORED = dict(cut([HistoryItem(QUESTION)]).new)


def test_an_earlier_answer_becomes_the_whole_history() -> None:
    request = {"model": "m", "previous_response_id": "resp_1", "input": "And now?"}

    body = sent(request, STORED)

    assert "previous_response_id" not in body
    assert body["model"] == "m"
    question, reasoning, text, call, last = body["input"]
    assert question == QUESTION
    assert reasoning["id"] == "rs_1"
    assert [text, call] == [without_id(TEXT), without_id(CALL)]
    assert last == {"role": "user", "content": "And now?"}


def test_a_reference_becomes_its_item() -> None:
    result = {"type": "function_call_output", "call_id": "call_1", "output": "4"}
    references = [{"type": "item_reference", "id": "msg_1"}, {"id": "fc_1"}]
    request = {"input": [QUESTION, *references, result]}

    assert list_references(request) == ["msg_1", "fc_1"]
    assert len(list_pieces(request, STORED)) == 2
    assert sent(request, STORED)["input"] == [
        QUESTION,
        without_id(TEXT),
        without_id(CALL),
        result,
    ]


@pytest.mark.parametrize(
    ("request_", "param", "id_"),
    [
        ({"previous_response_id": "resp_9", "input": "x"}, "previous_response_id", "resp_9"),
        (
            {"input": ["x", {"type": "item_reference", "id": "msg_9"}]},
            "input[1]",
            "msg_9",
        ),
        # An item is not an answer, nor an answer an item.
        ({"previous_response_id": "msg_1", "input": "x"}, "previous_response_id", "msg_1"),
        ({"input": [{"type": "item_reference", "id": "resp_1"}]}, "input[0]", "resp_1"),
    ],
)
def test_an_unknown_reference_is_named(request_: Json, param: str, id_: str) -> None:
    with pytest.raises(NotKept) as error:
        joined(request_, STORED)

    assert (error.value.param, error.value.id) == (param, id_)


def test_a_history_without_one_of_its_pieces_is_not_kept() -> None:
    lost = next(id_ for id_, content in STORED.items() if content.get("item") == QUESTION)
    left = {id_: content for id_, content in STORED.items() if id_ != lost}

    with pytest.raises(NotKept):
        joined({"previous_response_id": "resp_1", "input": "x"}, left)


def test_reasoning_that_a_provider_stores_returns_to_its_maker_alone() -> None:
    request = {"model": "m", "previous_response_id": "resp_1", "input": "x"}
    body = joined_body(request, joined(request, STORED))

    same, other = (json.loads(move_response(body, maker).body) for maker in (MAKER, "zzzzzzzz"))

    assert same["input"][1] == ANSWER["output"][0]
    assert [item.get("type") for item in other["input"]] == [
        None,
        "message",
        "function_call",
        None,
    ]
    unstored = {**request, "store": False}
    body = joined_body(unstored, joined(unstored, STORED))
    assert b"reasoning" not in move_response(body, MAKER).body


def test_a_later_answer_adds_only_what_is_new() -> None:
    request = {"previous_response_id": "resp_1", "input": "And now?"}
    later = cut(joined(request, STORED), {**ANSWER, "id": "resp_2", "output": []})

    assert len(later.kept) == 4
    contents = [content for content in later.new.values() if "item" in content]
    assert contents == [{"item": {"role": "user", "content": "And now?"}}]


def test_users_share_no_piece() -> None:
    ann, ben = (cut([HistoryItem(QUESTION)], user=user) for user in ("ann", "ben"))
    names = {"resp_1", "rs_1", "msg_1", "fc_1"}

    assert ann.new.keys() & ben.new.keys() == names


@pytest.mark.parametrize(
    "answer",
    [
        {**ANSWER, "status": "failed"},
        {**ANSWER, "status": "queued"},
        {**ANSWER, "output": None},
        {"status": "completed", "output": []},
    ],
)
def test_what_cannot_be_continued_is_not_kept(answer: Json) -> None:
    assert cut_history([HistoryItem(QUESTION)], answer, MAKER, "") is None


ITEMS = st.lists(
    st.dictionaries(
        st.sampled_from(["role", "content", "output", "call_id", "type"]),
        st.text(max_size=5),
        max_size=3,
    ).filter(lambda item: item.get("type") != "item_reference"),
    max_size=5,
)


@given(st.lists(st.tuples(ITEMS, ITEMS), min_size=1, max_size=4))
def test_a_thread_of_answers_is_the_same_as_its_whole_history(
    turns: list[tuple[list[Json], list[Json]]],
) -> None:
    stored: Json = {}
    whole: list[Json] = []
    request: Json = {}
    for number, (asked, output) in enumerate(turns):
        request = {"input": asked}
        if number:
            request["previous_response_id"] = f"resp_{number - 1}"
        history = joined(request, stored)
        answer = {"id": f"resp_{number}", "status": "completed", "output": output}
        stored |= cut(history, answer).new
        whole += [*asked, *output]

    last = {"previous_response_id": f"resp_{len(turns) - 1}", "input": []}
    assert [item.item for item in joined(last, stored)] == whole
