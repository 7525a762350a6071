"""The credential API (D4): exact paths and shapes, and never a value."""

import json
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from harness.frame.configuration.dotenv import record_dotenv
from harness.frame.people.access import SYSTEM
from harness.frame.runtime.encryption import FernetCipher, new_key
from harness.providers.records import Credentials, Providers
from harness.providers.registry import credentials
from harness.providers.target import Provider
from tests.support.control.control_plane import SmallInstallation
from tests.support.site.management_api import Door, error_of

pytestmark = pytest.mark.req("D4")
VALUE = "sk-SEEDED-value-0001"
KEYS = [new_key()]


@pytest.fixture
def door(tmp_path: Path) -> Door:
    made = SmallInstallation(tmp_path)
    made.set_up()
    found = Door(made)
    installation = found.app.state.installation
    context = installation.context
    object.__setattr__(context, "cipher", FernetCipher(lambda: KEYS))
    return found


def stored(door: Door, name: str) -> list[str]:
    context = door.app.state.installation.context
    with context.store.read() as tx:
        found = [
            credential for credential in Credentials(tx).all() if credential.provider == name
        ]
    return [
        context.cipher.decrypt(credential.ciphertext)
        for credential in found
        if credential.ciphertext
    ]


@pytest.mark.spine
def test_an_overlap_keeps_the_old_value_behind_the_new_one_until_it_expires(door: Door) -> None:
    path = "/credentials/providers/openai"
    door.send("PUT", path, json={"value": "one"})
    shown = door.send("PUT", path, json={"value": "two", "overlapS": 3600}).json()
    door.send(
        "PUT",
        path,
        json={
            "value": "zero",
            "key": "more",
            "first": True,
        },
    )

    assert [credential["name"] for credential in shown["stored"]] == [
        "default",
        "default.old",
    ]
    assert stored(door, "openai") == ["zero", "two", "one"]
    door.world.clock.advance(timedelta(hours=1, seconds=1).total_seconds())
    assert credentials.expire_credentials(door.app.state.installation.context) == 1
    assert stored(door, "openai") == ["zero", "two"]
    door.send("DELETE", f"{path}?key=more")
    assert stored(door, "openai") == ["two"]
    assert door.send("DELETE", path).json()["hasValue"] is False
    assert error_of(door.send("DELETE", path), 404)


NONSENSE: tuple[tuple[str, dict[str, object], int], ...] = (
    ("nowhere", {"value": VALUE}, 404),
    ("nowhere", {"value": VALUE, "kind": "custom"}, 422),
    ("openai", {"value": "two words"}, 422),
    ("openai", {"value": ""}, 422),
    (
        "openai",
        {"value": VALUE, "apiBase": f"https://u:{VALUE}@host/v1"},
        422,
    ),
    ("openai", {"value": VALUE, "apiBase": "ftp://host"}, 422),
    ("openai", {"value": VALUE, "api_base": "https://host"}, 422),
    ("openai", {"value": [VALUE]}, 422),
    ("sim", {"value": VALUE, "kind": "openai"}, 422),
    ("openai", {"value": VALUE, "key": "No Name"}, 422),
)


def test_what_makes_no_sense_is_refused_without_repeating_a_secret(door: Door) -> None:
    for name, body, status in NONSENSE:
        answer = door.send("PUT", f"/credentials/providers/{name}", json=body)
        error_of(answer, status)
        assert VALUE not in answer.text
        assert stored(door, name) == []


@pytest.mark.req("D1")
@pytest.mark.req("D1", "D4")
@pytest.mark.spine
def test_a_new_provider_finds_its_vendors_variable_and_takes_every_field(door: Door) -> None:
    context = door.app.state.installation.context
    object.__setattr__(context, "environ", {"OPENAI_API_KEY": VALUE})
    body: dict[str, object] = {"apiBase": "https://api.openai.com/v1"}
    found = door.send("PUT", "/credentials/providers/openai", json=body).json()
    assert (found["hasValue"], found["source"]) == (True, "environment")

    body = {
        "apiKey": "sk-stored-1",
        "extraHeaders": {"x-team": "a"},
        "extraBody": {"user": "b"},
    }
    kept = door.send("PUT", "/credentials/providers/openai", json=body).json()
    assert (kept["source"], kept["extraHeaders"]) == ("stored", ["x-team"])
    assert stored(door, "openai") == ["sk-stored-1"]
    with context.store.read() as tx:
        assert Providers(tx).all()["openai"].extra_body == {"user": "b"}


@pytest.mark.req("D4", "E3")
def test_removing_a_key_says_where_the_keys_are_that_are_not_stored(door: Door) -> None:
    context = door.app.state.installation.context
    path = "/credentials/providers/openai"
    environ = dict[str, str]()
    object.__setattr__(context, "environ", environ)
    door.send("PUT", path, json={"apiBase": "https://api.openai.com/v1"})
    nothing = error_of(door.send("DELETE", path), 404)["message"]
    assert "there is nothing to remove" in nothing

    environ["OPENAI_API_KEY"] = VALUE
    refused = door.send("DELETE", path)
    message = error_of(refused, 404)["message"]
    assert "OPENAI_API_KEY in the environment of this process" in message
    assert "unset OPENAI_API_KEY" in message
    assert VALUE not in refused.text

    environ |= record_dotenv({"OPENAI_API_KEY"}, "/srv/swapproof/.env")
    message = error_of(door.send("DELETE", path), 404)["message"]
    assert "Its key comes from OPENAI_API_KEY in /srv/swapproof/.env" in message
    assert "delete OPENAI_API_KEY from /srv/swapproof/.env" in message
    door.send("PUT", path, json={"value": "sk-stored-1"})
    message = error_of(door.send("DELETE", f"{path}?key=spare"), 404)["message"]
    assert "no stored key 'spare': it has default. Another key comes from" in message

    left = door.send("DELETE", path).json()
    assert (left["hasValue"], left["source"]) == (True, "environment")
    place = {"variable": "OPENAI_API_KEY", "file": "/srv/swapproof/.env"}
    assert left["variables"] == [place]
    assert door.get("/credentials/providers")["items"][0]["variables"] == [place]


def test_headers_that_cannot_be_sent_are_refused_by_name(door: Door) -> None:
    for path in ("/credentials/providers/sim", "/providers/sim"):
        for headers, reason in (
            ({"X-A": f"a\n{VALUE}"}, "the value of the extra header 'X-A'"),
            ({"bad name": VALUE}, "'bad name' is not a header name"),
        ):
            answer = door.send("PUT", path, json={"extraHeaders": headers})
            assert reason in error_of(answer, 422)["message"]
            assert VALUE not in answer.text
            assert door.get("/providers/sim")["extraHeaders"] == []


@pytest.mark.req("D7")
def test_a_kind_that_people_sign_in_for_takes_no_key(door: Door) -> None:
    body = {"value": VALUE}
    for method, path, sent in (
        ("PUT", "/openai_codex", body),
        ("POST", "", {"name": "github_copilot", **body}),
        ("PUT", "/mine", {"kind": "openai_codex", **body}),
    ):
        answer = door.send(method, f"/credentials/providers{path}", json=sent)
        assert "swapproof provider key login" in error_of(answer, 422)["message"]
        assert VALUE not in answer.text
    assert [provider["name"] for provider in door.get("/providers")["items"]] == ["sim"]


@pytest.mark.req("D1")
def test_a_name_that_is_none_is_refused_and_an_old_one_stays_readable(door: Door) -> None:
    name = "\N{ROCKET} b"
    path = quote(name)
    body = {"kind": "openai", "value": VALUE}
    for answer in (
        door.send("PUT", f"/credentials/providers/{path}", json=body),
        door.send("POST", "/credentials/providers", json={"name": name, **body}),
        door.send("PUT", f"/providers/{path}", json={"kind": "openai"}),
    ):
        assert "is not a provider name" in error_of(answer, 422)["message"]
    with door.app.state.installation.context.store.write() as tx:
        Providers(tx).put(Provider(name, "openai", "https://api.openai.com/v1"))

    assert door.get(f"/providers/{path}")["name"] == name
    changed = door.send("PUT", f"/credentials/providers/{path}", json={"value": VALUE})
    assert changed.json()["keys"] == 1


def test_the_value_is_write_only_in_the_description(door: Door) -> None:
    schemas = door.document["components"]["schemas"]
    value = schemas["NewCredentialBody"]["properties"]["value"]
    assert (value["format"], value["writeOnly"]) == ("password", True)
    assert "value" not in schemas["ProviderCredentials"]["properties"]
    assert "ciphertext" not in json.dumps(schemas)


@pytest.mark.spine
def test_every_value_is_encrypted_anew_or_none(door: Door) -> None:
    context = door.app.state.installation.context
    for name in ("openai", "groq"):
        door.send(
            "PUT",
            f"/credentials/providers/{name}",
            json={"value": f"{name}-value"},
        )
    with context.store.read() as tx:
        before = [credential.ciphertext for credential in Credentials(tx).all()]
    KEYS.insert(0, new_key())
    object.__setattr__(context, "cipher", FernetCipher(lambda: KEYS))

    assert credentials.rotate_encryption(context, SYSTEM).values == 2

    with context.store.read() as tx:
        after = [credential.ciphertext for credential in Credentials(tx).all()]
    assert not set(before) & set(after)
    only_new = FernetCipher(lambda: KEYS[:1])
    assert sorted(map(only_new.decrypt, after)) == [
        "groq-value",
        "openai-value",
    ]
