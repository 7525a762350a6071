"""OpenAI over HTTP, with chats and Responses: its models from GPT-5.4 take tools beside
reasoning only by Responses.

has_responses: False for a deployment or a proxy without that endpoint.
"""

from tests.wire import openai, responses
from tests.wire.openai import error
from tests.wire.server import KEY, Json, Reading, Reply, Strict, WireRequest


def strict(*, has_responses: bool = True) -> Strict:
    last: list[WireRequest] = []

    def read(asked: WireRequest) -> Reading:
        last[:] = [asked]
        if asked.path != "/v1/responses":
            return openai.read(asked)
        if not has_responses:
            raise error(404, "Invalid URL (POST /v1/responses)", "unknown_url")
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            raise error(401, "Incorrect API key provided", "invalid_api_key")
        return responses.read(asked.body, "openai")

    def whole(reply: Reply) -> Json:
        if last[0].path == "/v1/responses":
            return responses.whole(reply, last[0].body, "openai")
        return openai.whole(reply)

    def events(reply: Reply) -> list[bytes]:
        if last[0].path == "/v1/responses":
            return responses.events(responses.whole(reply, last[0].body, "openai"))
        return openai.events(reply)

    return Strict(read, openai.streams, whole, events, "/v1", openai.bad)
