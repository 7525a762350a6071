import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.runner.chat_completions import (
    MalformedReply,
    ReplyToolCall,
    parse_reply,
    request_body,
)
from evals.runner.inspect_runner import PREFIX, run_dir
from harness.providers.target import RequestPatch, Target

ASKED = [{"role": "user", "content": "Hi"}]


@pytest.mark.req("A8")
def test_the_request_patch_wins_over_the_target_and_the_target_over_the_suite() -> None:
    target = Target(
        "sim",
        "m",
        parameters={
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 1,
        },
        request_patch=RequestPatch(parameters={"seed": 2}),
    )

    assert request_body(target, ASKED, {"temperature": 0.0, "max_tokens": 9}) == {
        "model": "m",
        "messages": ASKED,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 9,
        "seed": 2,
    }


def test_a_null_takes_a_field_out_and_one_limit_replaces_the_other() -> None:
    target = Target(
        "sim",
        "m",
        parameters={"temperature": None, "max_completion_tokens": 5},
    )

    sent = request_body(target, ASKED, {"temperature": 0.0, "max_tokens": 9})

    assert sent == {
        "model": "m",
        "messages": ASKED,
        "max_completion_tokens": 5,
    }


@pytest.mark.req("A8")
@pytest.mark.parametrize(
    ("before", "system"),
    [([], "JSON only."), (["Be brief."], "Be brief.\n\nJSON only.")],
)
def test_the_addendum_goes_to_the_end_of_the_system_message(
    before: list[str], system: str
) -> None:
    patch = RequestPatch(prompt_addendum="JSON only.", response_format={"type": "json_object"})
    messages = [
        *({"role": "system", "content": text} for text in before),
        *ASKED,
    ]

    sent = request_body(Target("sim", "m", request_patch=patch), messages, {})

    assert sent["messages"] == [
        {"role": "system", "content": system},
        *ASKED,
    ]
    assert sent["response_format"] == {"type": "json_object"}


def raw(message: object, **more: object) -> bytes:
    return json.dumps(
        {"choices": [{"message": message, "finish_reason": "stop"}], **more}
    ).encode()


def test_a_reply_tells_text_usage_and_who_served_it() -> None:
    reply = parse_reply(
        raw(
            {"content": "Hello"},
            model="m-2026",
            system_fingerprint="fp_1",
            usage={
                "prompt_tokens": 7,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
        )
    )

    assert (reply.text, reply.finish, reply.served.label) == (
        "Hello",
        "stop",
        "m-2026@fp_1",
    )
    assert (
        reply.input_tokens,
        reply.cached_tokens,
        reply.output_tokens,
    ) == (7, 4, 2)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None, "refusal": "I won't."}, "I won't."),
        (
            {
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "text", "text": "b"},
                ]
            },
            "ab",
        ),
        ({"content": None}, ""),
        ({"content": "half \ud83d"}, "half \ufffd"),
    ],
)
def test_content_may_be_a_refusal_parts_or_nothing(message: object, text: str) -> None:
    assert parse_reply(raw(message)).text == text


@pytest.mark.parametrize("arguments", ['{"a": 1}', {"a": 1}], ids=["text", "object"])
def test_tool_calls_are_kept_with_their_arguments_as_text(arguments: object) -> None:
    call = {"id": "c1", "function": {"name": "add", "arguments": arguments}}

    assert parse_reply(raw({"content": None, "tool_calls": [call]})).tool_calls == (
        ReplyToolCall("c1", "add", '{"a": 1}'),
    )


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"error": {"message": "overloaded"}}', "an error inside a 200"),
        (b'{"choices": []}', "not a chat completion"),
        (
            b'{"choices": [{"message": {"content": 3}}]}',
            "not a chat completion",
        ),
        (raw({"content": "x"}, usage=[1]), "not a chat completion"),
    ],
)
def test_what_is_no_chat_completion_is_called_malformed(answer: bytes, told: str) -> None:
    with pytest.raises(MalformedReply, match=told):
        parse_reply(answer)


@given(st.binary(max_size=80))
def test_no_bytes_break_the_reader(answer: bytes) -> None:
    with pytest.raises(MalformedReply):
        parse_reply(answer)


HOLD = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from evals.runner.inspect_runner import run_dir
with run_dir() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_the_folder_is_private_and_gone_afterwards() -> None:
    with run_dir() as folder:
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "log").write_text("a prompt", encoding="utf-8")
    assert not folder.exists()


def test_a_killed_runs_folder_is_cleared_by_the_next_run_and_one_in_use_stays(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with run_dir():
            assert theirs.exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert theirs.exists()
    with run_dir() as ours:
        assert list(tmp_path.glob(f"{PREFIX}*")) == [ours]
