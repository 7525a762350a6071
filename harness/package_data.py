"""Where the files lie that ship with Swapgate but are no code: data, migrations, defaults."""

from pathlib import Path

from harness.domain.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent
# In a wheel they lie inside `harness`. That place goes first: beside it, in site-packages, a
# folder `datasets` would be another library's.
_PLACES = (_PACKAGE / "_shipped", _PACKAGE.parent)


def path(name: str) -> Path:
    """The file or folder `name`: `datasets`, `migrations` or `config/default.yaml`.

    Raises ConfigError when this installation lacks it.
    """
    for place in _PLACES:
        if (place / name).exists():
            return place / name
    raise ConfigError(
        f"this installation of Swapgate lacks {name!r}, looked for in "
        f"{' and '.join(map(str, _PLACES))}: install it again"
    )
