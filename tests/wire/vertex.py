"""Vertex: Gemini's generateContent below a project's place, with an access token."""

from tests.wire import gemini
from tests.wire.gemini import MODEL, SIGNATURE, bad, events, whole
from tests.wire.server import KEY, Reading, Strict, WireRequest

PLACE = "/v1/projects/acme/locations/europe-west4/publishers/google"

__all__ = ["MODEL", "PLACE", "SIGNATURE", "bad", "events", "strict", "whole"]


def strict() -> Strict:
    return Strict(
        read,
        lambda request: "alt=sse" in request.path,
        whole,
        events,
        PLACE,
        bad,
    )


def read(asked: WireRequest) -> Reading:
    if "x-goog-api-key" in asked.headers or asked.headers.get("authorization") != (
        f"Bearer {KEY}"
    ):
        raise gemini.error(
            401,
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials. Expected OAuth 2 access token.",
        )
    return gemini.read_below(PLACE, asked)
