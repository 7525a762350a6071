"""`alerts:` in the file: what may stand there, and that no URL is shown."""

from pathlib import Path

import pytest

from harness import config, package_data
from harness.app.doctor import checks
from harness.cli.operations.configuration import effective
from harness.domain.errors import ConfigError
from harness.domain.settings import Settings


def load(folder: Path, sinks: str) -> Settings:
    file = folder / "swapgate.yaml"
    file.write_text(f"alerts:\n  sinks:\n{sinks}", encoding="utf-8")
    return config.load_settings(file, {}, defaults=package_data.path("config/default.yaml"))


@pytest.mark.req("B9")
def test_sinks_are_read_and_get_names(tmp_path: Path) -> None:
    sinks = load(
        tmp_path,
        "    - url: slack://a/b/c\n"
        "    - {url_env: MAIL, name: mail}\n"
        "    - {webhook: 'https://x.example/in', secret_env: S}\n",
    ).alerts.sinks

    assert [sink.name for sink in sinks] == ["slack-1", "mail", "webhook-3"]
    assert sinks[0].url == "slack://a/b/c"


@pytest.mark.parametrize(
    ("sink", "why"),
    [
        ("{name: x}", "give one of"),
        ("{url: 'slack://a/b/c', url_env: S}", "give one of"),
        ("{webhook: 'https://x.example/'}", "secret_env"),
        ("{webhook: 'ftp://x.example/', secret_env: S}", "http or https"),
        ("{url: 'slack://a/b/c', secret_env: S}", "belongs to a webhook"),
        ("{url: nothing}", "no URL of apprise"),
        ("{webhook: 'http://169.254.169.254/x', secret_env: S}", "link-local"),
        ("{webhook: 'http://2852039166/x', secret_env: S}", "link-local"),
        ("{webhook: 'http://0xa9fea9fe/x', secret_env: S}", "link-local"),
        ("{webhook: 'http://169.254.43518/x', secret_env: S}", "link-local"),
        ("{webhook: 'http://169.254.169.254./x', secret_env: S}", "link-local"),
        ("{webhook: 'http://[::ffff:169.254.169.254]/x', secret_env: S}", "link-local"),
        ("{webhook: 'http://[fd00:ec2::254]/x', secret_env: S}", "metadata"),
        ("{webhook: 'http://100.100.100.200/x', secret_env: S}", "metadata"),
        ("{webhook: 'http://168.63.129.16/x', secret_env: S}", "metadata"),
        ("{webhook: 'http://metadata.goog/x', secret_env: S}", "metadata"),
        ("{webhook: 'http://instance-data.ec2.internal/x', secret_env: S}", "metadata"),
        ("{url: 'json://metadata.google.internal/'}", "metadata"),
        ("{url: 'slack://a/b/c', retries: 3}", "unknown key"),
    ],
)
def test_a_sink_that_makes_no_sense_is_refused_with_its_place(
    tmp_path: Path, sink: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as raised:
        load(tmp_path, f"    - {sink}\n")

    assert "swapgate.yaml:3" in str(raised.value)
    assert "a/b/c" not in str(raised.value)


def test_two_sinks_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a second sink 'x'"):
        load(tmp_path, "    - {name: x, url_env: A}\n    - {name: x, url_env: B}\n")


def test_the_settings_are_shown_and_repeated_without_urls(tmp_path: Path) -> None:
    found = load(tmp_path, "    - url: slack://tokenA/tokenB\n")

    assert "tokenA" not in f"{effective(found)} {found!r}"
    assert "***" in str(effective(found))


def test_the_doctor_names_a_variable_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(
        tmp_path,
        "    - {url_env: MAIL_URL, name: mail}\n"
        "    - {webhook: 'https://x.example/in', secret_env: HOOK}\n",
    )
    monkeypatch.setenv("HOOK", "s3cret")

    mail, hook = checks._alert_sinks(settings, None)

    assert (mail.status, hook.status) == ("warn", "ok")
    assert "MAIL_URL is not set" in mail.found
    assert "s3cret" not in f"{mail} {hook}"
