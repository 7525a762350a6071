import base64
import json
from array import array
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.failures import FailureClass, Reach
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import RequestPatch
from router.frame.body import read_request
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import parse_object
from router.protocols.endpoints import EMBEDDINGS
from router.protocols.vector_encoding import encode_vectors
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import AUTH, Door, Place
from tests.support.router.live_router import CANDIDATE, FALLBACK, INCUMBENT, snapshot

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
FLOATS = [0.25, -1e-3]


def packed(*values: float) -> str:
    return base64.b64encode(array("f", values).tobytes()).decode()


def check(
    given: object,
    *vectors: Any,
    **more: object,
) -> None:
    asked = json.dumps(
        {
            "model": "r",
            "input": given,
            **more,
        }
    ).encode()
    answer = json.dumps({"data": list(vectors)}).encode()
    EMBEDDINGS.check_vectors(read_request(asked, Endpoint.EMBEDDINGS), parse_object(answer))


def vector(index: object, embedding: object) -> dict[str, object]:
    return {
        "object": "embedding",
        "index": index,
        "embedding": embedding,
    }


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize(
    ("given", "vectors"),
    [
        (["a", "b"], [vector(0, FLOATS)]),
        ("a", [vector(0, FLOATS), vector(1, FLOATS)]),
        ([1, 2, 3], [vector(0, FLOATS)] * 3),
        (["a", "b"], [vector(0, FLOATS), vector(0, FLOATS)]),
        (["a", "b"], [vector(0, FLOATS), vector(2, FLOATS)]),
        ("a", [vector("0", FLOATS)]),
        ("a", [{"index": True, "embedding": FLOATS}]),
        (["a", "b"], [vector(0, FLOATS), vector(1, [0.5])]),
        (["a", "b"], [vector(0, packed(*FLOATS)), vector(1, packed(0.5))]),
        (["a", "b"], [vector(0, FLOATS), vector(1, packed(*FLOATS))]),
        ("a", [vector(0, [])]),
        ("a", [vector(0, None)]),
        ("a", [vector(0, "")]),
        ("a", [vector(0, "not base64!")]),
        ("a", [vector(0, "AAA=")]),
        ("a", [vector(0, packed(1.0, float("nan")))]),
        ("a", [vector(0, packed(float("inf")))]),
        ("a", [vector(0, [0.5, None])]),
        ("a", [vector(0, [0.5, "1"])]),
        ("a", [vector(0, [[0.5]])]),
        ("a", [vector(0, [True, 0.5])]),
        ("a", [[0.5]]),
    ],
)
def test_embeddings_that_are_not_whole_are_malformed(given: object, vectors: list[Any]) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        check(given, *vectors)
    assert failed.value.failure is FailureClass.MALFORMED


def test_a_number_beyond_all_floats_is_malformed() -> None:
    request = read_request(b'{"model":"r","input":"a"}', Endpoint.EMBEDDINGS)
    huge = b'{"data":[{"index":0,"embedding":[1e999]}]}'
    long = b'{"data":[{"index":0,"embedding":[1.5,1' + b"0" * 400 + b"]}]}"
    for answer in (huge, long):
        with pytest.raises(UpstreamFailed):
            EMBEDDINGS.check_vectors(request, parse_object(answer))


@pytest.mark.req("A2")
@given(
    st.lists(st.lists(finite, min_size=3, max_size=3), min_size=1, max_size=5),
    st.data(),
)
def test_whole_embeddings_pass_in_any_order(
    rows: list[list[float]], data: st.DataObject
) -> None:
    plain = [vector(at, row) for at, row in enumerate(rows)]
    as_base64 = [vector(at, packed(*row)) for at, row in enumerate(rows)]
    texts = ["x"] * len(rows)

    check(texts, *data.draw(st.permutations(plain)))
    check(texts, *data.draw(st.permutations(as_base64)))


@pytest.mark.req("A5")
def test_the_dimension_that_was_asked_for_is_the_one_that_comes() -> None:
    check("a", vector(0, FLOATS), dimensions=2)
    with pytest.raises(UpstreamFailed, match="2 dimensions; the request asked for 512"):
        check("a", vector(0, FLOATS), dimensions=512)


def test_one_text_as_tokens_is_one_input() -> None:
    check([1, 2, 3], vector(0, FLOATS))
    check([[1, 2], [3]], vector(0, FLOATS), vector(1, FLOATS))
    check(["a", "b"], {"embedding": FLOATS}, {"embedding": FLOATS})
    check("a", vector(0, [1e308, 1e308]))


@pytest.mark.parametrize("given", [None, [], {"text": "a"}, 7])
def test_what_is_no_input_is_the_providers_to_refuse(given: object) -> None:
    check(given, vector(0, FLOATS), vector(1, FLOATS))


PATH = "/v1/embeddings"
ASK = b'{"model":"support", "input":["hello"],"encoding_format":"float"}'
BODY = (
    b'{"object" : "list", "model":"m", "data":[{"object":"embedding","index":0,'
    b'"embedding":[0.25, -1e-3]}],"usage":{"prompt_tokens":7,"total_tokens":7}, "x":1.0}'
)
VECTORS = ScriptedTurn(steps=(BODY,))


@pytest.mark.req("A2")
async def test_vectors_come_back_under_the_routes_name_and_are_recorded(tmp_path: Path) -> None:
    door = Door(tmp_path, lambda _: VECTORS)

    _, headers, body = await door.call(PATH, ASK)

    assert body == BODY.replace(b'"m"', b'"support"')
    assert headers[b"x-swapproof-target"] == f"up/{INCUMBENT}".encode()
    (asked,) = door.transport.seen
    assert asked.path == "/embeddings"
    assert asked.body == ASK.replace(b'"support"', f'"{INCUMBENT}"'.encode())
    door.recorder.flush(final=True)
    (row,) = door.kept.traffic
    assert (row.input_tokens, row.output_tokens, row.cost_usd) == (7, 0, 7e-6)


@pytest.mark.req("A2", "B4")
async def test_both_endpoints_of_a_target_share_its_breaker(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: error(401), FALLBACK: VECTORS}, fallback=True)
    await place.call(PATH, ASK)
    place.script = {INCUMBENT: error(500), FALLBACK: completion("spare")}

    assert (await place.ask())[0] == 200
    assert place.asked == {INCUMBENT: 1, FALLBACK: 2}


async def test_a_targets_settings_about_words_are_left_out(tmp_path: Path) -> None:
    patch = RequestPatch(prompt_addendum="be brief", parameters={"temperature": 0})
    door = Door(tmp_path, lambda _: VECTORS, first=snapshot("http://up", patch=patch))

    await door.call(PATH, ASK)

    assert json.loads(door.transport.seen[0].body) == {
        **json.loads(ASK),
        "model": INCUMBENT,
    }


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ([9906, 1917], "token numbers"),
        ([[9906, 1917], [15]], "token numbers"),
        ("", "an empty input"),
        ([""], "an empty input"),
        ([], "an empty input"),
    ],
)
def test_no_vector_for_an_unusual_form_of_input_is_that_forms_fault(
    given: object, form: str
) -> None:
    with pytest.raises(UpstreamFailed, match=form) as failed:
        check(given)
    assert failed.value.failure is FailureClass.BAD_REQUEST
    assert failed.value.unable


def test_no_vector_for_a_text_is_the_targets_fault_and_perhaps_one_requests() -> None:
    for texts in ("a", ["a", "b"], ["", "b"]):
        with pytest.raises(UpstreamFailed, match="an empty list of vectors") as failed:
            check(texts)
        assert failed.value.failure is FailureClass.MALFORMED
        assert failed.value.reach is Reach.REQUEST
        assert not failed.value.unable


async def test_no_vector_for_token_numbers_harms_no_canary_and_opens_no_circuit(
    tmp_path: Path,
) -> None:
    nothing = ScriptedTurn(steps=(b'{"object":"list","data":[],"model":"m"}',))
    vectors = json.dumps({"object": "list", "model": "m", "data": [vector(0, FLOATS)]})
    whole = ScriptedTurn(steps=(vectors.encode(),))
    body = json.dumps({"model": "support", "input": [1, 2, 3]}).encode()
    scene = Place(tmp_path, {CANDIDATE: nothing, INCUMBENT: whole}, weight_bps=10_000)
    for number in range(8):
        sticky = (b"x-swapproof-sticky", b"%d" % number)
        status, _, _ = await scene.call(PATH, body, headers=(AUTH, sticky))
        assert status == 200
    scene.recorder.flush(final=True)
    for block in scene.kept.blocks.values():
        assert set(block.outcomes) == {"not_measured: unsupported"}

    alone = Place(tmp_path / "alone", {INCUMBENT: nothing})
    for _ in range(8):
        status, _, said = await alone.call(PATH, body, headers=(AUTH,))
        assert status == 422
        assert b"check_embedding_ctx_length=False" in said


WORLD: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "world" / "embeddings" / "mixed.yaml").read_text("utf-8")
)["answers"]


@pytest.mark.parametrize("case", WORLD, ids=lambda case: case["name"])
def test_published_answers_without_vectors_have_their_fault(case: dict[str, Any]) -> None:
    assert case["source"].startswith("https://")
    body = json.dumps({"model": "r", "input": case["input"]}).encode()
    answer = parse_object(json.dumps(case["body"]).encode())

    def read() -> None:
        EMBEDDINGS.checked(answer)
        EMBEDDINGS.check_vectors(read_request(body, Endpoint.EMBEDDINGS), answer)

    with pytest.raises(UpstreamFailed) as failed:
        read()
    found = {"outcome": failed.value.failure.value, "reach": failed.value.reach.value}
    assert found == case["right"]


ENCODINGS: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "world" / "embeddings" / "mixed.yaml").read_text("utf-8")
)["encodings"]


@pytest.mark.req("B7")
@pytest.mark.parametrize("case", ENCODINGS, ids=lambda case: case["name"])
async def test_a_client_gets_vectors_in_the_encoding_that_it_asked_for(
    case: dict[str, Any], tmp_path: Path
) -> None:
    assert case["source"].startswith("https://")
    data = {"object": "list", "model": "m", "data": [vector(0, case["sent"])]}
    turn = ScriptedTurn(steps=(json.dumps(data).encode(),))
    ask = {"model": "support", "input": "a", "encoding_format": case["asked"]}

    status, _, raw = await Door(tmp_path, lambda _: turn).call(
        PATH, json.dumps(ask).encode(), headers=(AUTH,)
    )

    assert status == 200
    assert json.loads(raw) == {**data, "model": "support", "data": [vector(0, case["right"])]}


@given(st.lists(st.lists(finite, min_size=2, max_size=2), min_size=1, max_size=3))
def test_an_encoding_loses_no_float32(rows: list[list[float]]) -> None:
    numbers = [vector(n, row) for n, row in enumerate(rows)]
    texts = [vector(n, packed(*row)) for n, row in enumerate(rows)]

    assert encode_vectors(numbers, "base64") == texts
    assert encode_vectors(texts, None) == numbers
    assert encode_vectors(texts, "base64") is None
    assert encode_vectors(numbers, "int8") is None


def test_a_number_beyond_float32_stays_as_the_provider_sent_it() -> None:
    assert encode_vectors([vector(0, [1e300])], "base64") is None
