"""Where the files lie that ship with Swapgate but are no code: data, migrations, defaults."""

from pathlib import Path

from harness.frame.errors import ConfigError

# They lie beside `harness`: in the checkout, and in a wheel below `swapgate` (ADR 0030).
ROOT = Path(__file__).resolve().parents[2]


def path(name: str) -> Path:
    """The file or folder `name`: `datasets`, `docs`, `migrations` or `config/default.yaml`.

    Raises ConfigError when this installation lacks it.
    """
    if (ROOT / name).exists():
        return ROOT / name
    raise ConfigError(
        f"this installation of Swapgate lacks {name!r}, looked for in {ROOT}: install it again"
    )
