"""The commands and settings in docs/reference/models.md work as they stand."""

import re
import shlex
from pathlib import Path

import yaml

from harness import config, package_data
from harness.runtime.model_catalogue import LitellmTable
from tests.support.site.command_line import CommandLine

ROOT = Path(__file__).parent.parent.parent
DOCS = (ROOT / "docs/reference/models.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = "".join(re.findall(r"```sh\n(.*?)```", DOCS, flags=re.DOTALL)).splitlines()
    in_text = re.findall(r"`(swapgate model (?:add|list|search|match|resolve)[^`]*)`", DOCS)
    plain = [" ".join(command.split()) for command in in_text]
    return blocks + [
        command for command in plain if "WORDS" not in command and "NAME" not in command
    ]


def test_every_command_works(cli: CommandLine) -> None:
    ran = commands()
    for command in ran:
        words = shlex.split(command)
        assert words[0] == "swapgate"
        # Nothing that this installation's one provider offers is a gemini.
        cli.run(*words[1:], exits=1 if words[1:3] == ["model", "match"] else 0)

    assert {" ".join(command.split()[1:3]) for command in ran} == {
        *("model add", "model list", "model search", "model match", "proposal create")
    }


def test_the_settings_are_understood_and_the_count_is_right(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL)
    file = tmp_path / "swapgate.yaml"
    file.write_text(block, encoding="utf-8")
    settings = config.load_settings(file, {}, defaults=package_data.path("config/default.yaml"))

    assert len(settings.catalogue) == len(yaml.safe_load(block)["catalogue"])
    assert f"of {len(LitellmTable().catalogue())} models" in DOCS
