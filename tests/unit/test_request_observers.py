"""An observer that saw a request begin sees its end, wherever the request broke off."""

from pathlib import Path

import pytest

from router.recording.internal_errors import RouterPart
from router.request import client_directives, model_endpoint
from router.request.request_observers import ObservedRequest, RequestObserver, RequestObservers
from router.request.routed_response import RoutedResponse
from tests.support.router.asgi_router import ASK, CHAT, Door


class Witness(RequestObserver):
    part = RouterPart.RECORDING

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []

    def before_attempt(self, observed: ObservedRequest) -> None:
        self.begun.append(observed.request_id)

    def at_end(self, observed: ObservedRequest, response: RoutedResponse) -> None:  # noqa: ARG002 - the hook's
        self.ended.append(observed.request_id)


class BrokenOff(Exception):
    """A fault of ours that nothing catches."""


def break_off(*_: object, **__: object) -> None:
    raise BrokenOff


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> Witness:
    seen = Witness()
    build = RequestObservers.__init__

    def with_witness(self, always, of_evidence, errors) -> None:  # type: ignore[no-untyped-def]
        build(self, [seen, *always], of_evidence, errors)

    monkeypatch.setattr(RequestObservers, "__init__", with_witness)
    return seen


async def ask(folder: Path) -> None:
    # What the router answers then is tested elsewhere.
    await Door(folder).call(CHAT, ASK)


@pytest.mark.interpreted("replaces a method of a class")
async def test_the_end_comes_where_the_request_breaks_off_right_after_its_beginning(
    witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = RequestObservers.begin

    def begin_and_break_off(self: RequestObservers, observed: ObservedRequest) -> None:
        begin(self, observed)
        raise BrokenOff

    monkeypatch.setattr(RequestObservers, "begin", begin_and_break_off)

    await ask(tmp_path)

    assert len(witness.begun) == 1
    assert witness.ended == witness.begun


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (client_directives, "client_headers"),
        (model_endpoint, "RoutedResponse"),
        (RoutedResponse, "serve"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
async def test_who_saw_the_beginning_sees_the_end_whatever_fails_on_the_way(
    witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    monkeypatch.setattr(owner, name, break_off)

    await ask(tmp_path)

    assert witness.ended == witness.begun
