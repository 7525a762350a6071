import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.app import router_process, seed
from harness.app.configuration import configuration
from harness.app.configuration.model import Settings
from harness.frame import package_data
from harness.frame.errors import DecryptionFailed
from harness.frame.people.access import SYSTEM
from harness.frame.runtime.encryption import FernetCipher, new_key
from harness.providers.records import Providers
from harness.providers.registry import (
    credentials,
    provider_secrets,
    registered_providers,
    targets,
)
from harness.providers.registry.credentials import CredentialChange
from harness.providers.registry.targets import ProviderChange
from harness.providers.target import Provider
from router.snapshot.holder import load_snapshot, save_snapshot
from tests.support.control.bare_installation import BareInstallation

pytestmark = pytest.mark.req("D4", "C8")
VALUE = "SEEDED-header-0123456789"
HOSTED = Provider(
    "hosted",
    "openai",
    "http://127.0.0.1:9/v1",
    extra_headers={"x-key": VALUE},
)


def stored(world: BareInstallation) -> Provider:
    with world.store.read() as tx:
        return Providers(tx).all()["hosted"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "swapproof.yaml"
    given = {
        "kind": HOSTED.kind,
        "api_base": HOSTED.api_base,
        "extra_headers": {"x-key": VALUE},
    }
    file.write_text(json.dumps({"providers": {"hosted": given}}))
    return configuration.load_settings(
        file, {}, defaults=package_data.path("config/default.yaml")
    )


def test_a_header_is_stored_and_sent_to_routers_encrypted_with_its_name_readable(
    world: BareInstallation, tmp_path: Path
) -> None:
    ctx = world.context()
    targets.put_provider(ctx, SYSTEM, HOSTED)

    assert stored(world).extra_headers == {}
    assert stored(world).header_names == ["x-key"]
    snapshot = world.store.snapshot()
    save_snapshot(snapshot, tmp_path / "s.json")
    assert VALUE not in (tmp_path / "s.json").read_text()
    again = load_snapshot(tmp_path / "s.json")
    opened = router_process.decrypt_snapshot(again, ctx.cipher).providers["hosted"]
    assert opened == HOSTED
    shown = (
        registered_providers.get_provider(ctx, "hosted"),
        credentials.get_credentials(ctx, "hosted"),
    )
    assert [provider.extra_headers for provider in shown] == [
        ["x-key"],
        ["x-key"],
    ]


def test_the_same_header_put_again_changes_nothing(
    world: BareInstallation, settings: Settings
) -> None:
    ctx = world.context()
    targets.put_provider(ctx, SYSTEM, HOSTED)
    etag = world.store.etag()

    targets.put_provider(ctx, SYSTEM, HOSTED)
    assert seed.apply_providers(ctx, SYSTEM, settings) == []
    assert seed.list_seed_differences(ctx, settings) == []
    assert world.store.etag() == etag

    other = replace(HOSTED, extra_headers={"x-key": "another-value"})
    targets.put_provider(ctx, SYSTEM, other)
    assert (
        provider_secrets.decrypt_headers(stored(world), ctx.cipher).extra_headers
        == other.extra_headers
    )


def test_headers_are_replaced_whole_and_left_alone_where_they_are_not_named(
    world: BareInstallation,
) -> None:
    ctx = world.context()
    targets.put_provider(ctx, SYSTEM, HOSTED)

    moved = CredentialChange(settings={"api_base": "http://127.0.0.1:8/v1"})
    credentials.put_credential(ctx, SYSTEM, "hosted", moved)
    assert provider_secrets.decrypt_headers(stored(world), ctx.cipher).extra_headers == {
        "x-key": VALUE
    }

    credentials.put_credential(
        ctx,
        SYSTEM,
        "hosted",
        CredentialChange(extra_headers={"x-other": "v"}),
    )
    assert provider_secrets.decrypt_headers(stored(world), ctx.cipher).extra_headers == {
        "x-other": "v"
    }
    registered_providers.change_provider(
        ctx, SYSTEM, "hosted", ProviderChange(extra_headers={"x-third": "w"})
    )
    assert provider_secrets.decrypt_headers(stored(world), ctx.cipher).extra_headers == {
        "x-third": "w"
    }


def test_a_new_encryption_key_encrypts_headers_too(world: BareInstallation) -> None:
    old = new_key()
    new = new_key()
    ctx = replace(world.context(), cipher=FernetCipher(lambda: [old]))
    targets.put_provider(ctx, SYSTEM, HOSTED)

    both = replace(ctx, cipher=FernetCipher(lambda: [new, old]))
    assert credentials.rotate_encryption(both, SYSTEM).values == 1

    assert (
        provider_secrets.decrypt_headers(stored(world), FernetCipher(lambda: [new])) == HOSTED
    )
    foreign = replace(ctx, cipher=FernetCipher(lambda: [new_key()]))
    with pytest.raises(DecryptionFailed, match="header 'x-key' of provider 'hosted'"):
        credentials.rotate_encryption(foreign, SYSTEM)


def test_a_header_that_cannot_be_decrypted_holds_nothing_up_and_is_said(
    world: BareInstallation, caplog: pytest.LogCaptureFixture
) -> None:
    targets.put_provider(world.context(), SYSTEM, HOSTED)
    foreign = FernetCipher(lambda: [new_key()])

    found = router_process.decrypt_snapshot(world.store.snapshot(), foreign).providers["hosted"]

    assert found.extra_headers == {}
    assert "the header x-key of provider hosted" in caplog.text


def test_a_provider_that_is_removed_leaves_no_header_behind(world: BareInstallation) -> None:
    ctx = world.context()
    targets.put_provider(ctx, SYSTEM, HOSTED)
    registered_providers.remove_provider(ctx, SYSTEM, "hosted")
    targets.put_provider(ctx, SYSTEM, replace(HOSTED, extra_headers={}))

    assert stored(world).header_names == []


def test_a_header_that_is_a_key_stands_in_for_one_encrypted_or_not(
    world: BareInstallation,
) -> None:
    ctx = world.context()
    own = replace(HOSTED, extra_headers={"Authorization": "Basic x"})
    targets.put_provider(ctx, SYSTEM, own)

    assert not credentials.get_credentials(ctx, "hosted").lacks_key
