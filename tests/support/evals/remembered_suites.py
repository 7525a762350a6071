"""Loads each suite once in a test process, by its settings and the bytes of its file.

To load a suite takes up to half a second of CPU, and each step of a test's world, each command
and each run loads it again. Equal settings and equal bytes make an equal suite. The product's
own cache goes by the file's time, and lasts only as long as its catalogue.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from hashlib import sha256
from typing import Final

from evals.scorers.code import CODE
from evals.scorers.preference import PREFERENCE
from evals.suites import configured_suites, suite_import
from evals.suites.suite import Suite
from evals.suites.suite import load_suite as load_from_file
from harness.evals.settings import SuiteSettings

Key = tuple[str, str, str]
# Of a suite's cached properties, those that follow from its settings and its file alone.
DERIVED: Final = frozenset({"pin", "groups", "unlabelled", "dependence", "guessed_tokens"})
# Their suites also follow from the machine's sandbox, and from the draw beside the file.
OTHER_SOURCES: Final = frozenset({CODE.name, PREFERENCE.name})

_LOADED: Final[dict[Key, Suite]] = {}


def load_suite(settings: SuiteSettings) -> Suite:
    """Returns what the product's function returns, and raises what it raises."""
    key = _key(settings)
    if key is None:
        return load_from_file(settings)
    if key not in _LOADED:
        _LOADED[key] = load_from_file(settings)
        return _LOADED[key]
    return _with_settings(_LOADED[key], settings)


def remember_suites() -> None:
    """Lets the catalogues and imports of this process remember loaded suites."""
    loading: Callable[[SuiteSettings], Suite] = load_suite
    for module in (configured_suites, suite_import):
        vars(module)["load_suite"] = loading


def _key(settings: SuiteSettings) -> Key | None:
    """Returns None for a suite that also follows from something else, and for a broken one."""
    if settings.path is None or settings.judge is not None:
        return None
    if settings.scorer in OTHER_SOURCES:
        return None
    try:
        content = settings.path.read_bytes()
    except OSError:
        return None
    # A reader of the file goes by its name.
    return repr(replace(settings, path=None)), settings.path.name, sha256(content).hexdigest()


def _with_settings(loaded: Suite, settings: SuiteSettings) -> Suite:
    """Returns a copy that names its own file."""
    made = copy(loaded)
    cached = vars(loaded).keys() - Suite.__dataclass_fields__.keys()
    for name in cached - DERIVED:
        del vars(made)[name]
    vars(made)["settings"] = settings
    return made
