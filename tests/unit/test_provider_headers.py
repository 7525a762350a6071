"""Extra headers of a provider: those that HTTP carries as they are, and no others."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.runner.provider_client import EvalProviderClient, ProviderFailed
from harness.domain.errors import InputError
from harness.domain.providers.headers import (
    MAX_HEADERS,
    MAX_NAME_LENGTH,
    MAX_VALUE_LENGTH,
    check_headers,
)
from harness.domain.routing.target import Provider
from router.upstream.provider_client import ProviderClient

pytestmark = pytest.mark.req("D1")
SECRET = "SECRETLF99999"  # noqa: S105 - made up


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Team": "support", "authorization": "Basic dXNlcjpwYXNz"},
        {"x-empty": ""},
        {"x-inner": "a \t b", "!#$%&'*+.^_`|~0aZ-": "~!"},
        {"x" * MAX_NAME_LENGTH: "v" * MAX_VALUE_LENGTH},
        {f"x-{number}": "v" for number in range(MAX_HEADERS)},
    ],
)
def test_headers_that_http_carries_are_taken(headers: dict[str, str]) -> None:
    check_headers(headers)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "no name of a header"),
        ("bad name", "'bad name' is no name"),
        ("x:", "no name of a header"),
        ("X-É", "no name of a header"),
        ("x\r\ny", "no name of a header"),
        ("x" * (MAX_NAME_LENGTH + 1), "no name of a header"),
        *(
            (name, "the connection's own")
            for name in ("Host", "content-length", "Transfer-Encoding", "Connection", "TE")
        ),
    ],
)
def test_a_name_that_would_break_a_request_is_refused(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        check_headers({name: SECRET})
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        f"a\n{SECRET}",
        f"{SECRET}\n",
        f"{SECRET}\r\nx: y",
        f"a\n {SECRET}",
        f"{SECRET}\0",
        f"vé€{SECRET}",
        f"{SECRET}\x7f",
        f" {SECRET}",
        f"{SECRET}\t",
        SECRET + "v" * MAX_VALUE_LENGTH,
    ],
)
def test_a_value_that_no_header_carries_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(InputError, match="the value of the extra header 'X-A'") as refused:
        check_headers({"X-A": value})
    assert SECRET not in str(refused.value)


def test_names_are_one_whatever_their_case_and_not_too_many() -> None:
    with pytest.raises(InputError, match="'x-a' is given twice"):
        check_headers({"X-A": "1", "x-a": "2"})
    with pytest.raises(InputError, match=f"more than {MAX_HEADERS}"):
        check_headers({f"x-{number}": "v" for number in range(MAX_HEADERS + 1)})


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_what_is_taken_is_one_line_each(headers: dict[str, str]) -> None:
    try:
        check_headers(headers)
    except InputError:
        return
    for name, value in headers.items():
        line = f"{name}: {value}"
        assert line.isascii()
        assert line.splitlines() == [line]


def test_an_eval_is_told_of_a_header_that_cannot_be_sent() -> None:
    ours = Provider("up", "openai", "http://127.0.0.1:9/v1", None, {"x-a": f"a\n{SECRET}"})

    async def call_provider() -> None:
        client = EvalProviderClient(ours, None, calls=ProviderClient, connections=1)
        try:
            await client.ask({"messages": []})
        finally:
            await client.close()

    told = r"a header of this provider cannot be sent(?!.*attempts)"
    with pytest.raises(ProviderFailed, match=told) as failed:
        asyncio.run(call_provider())
    assert SECRET not in str(failed.value)
