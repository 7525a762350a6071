"""What a module mentions: imports, names of modules, paths of files, and fixtures.

`concerned_tests` follows the mentions from a test to the files that it reaches.
"""

import ast
import re
from fnmatch import fnmatch
from typing import Final

STARTS: Final = {"subprocess", "multiprocessing", "create_subprocess_exec"}
PATTERN: Final = re.compile(r"\*.*\w|\w.*\*")


class Part:
    """What a module mentions, or a definition in a conftest.py.

    imported: modules by the name that the import binds. requested: the names of arguments,
    which may be fixtures.
    """

    def __init__(self, *statements: ast.stmt) -> None:
        self.imported: dict[str, set[str]] = {}
        self.used: set[str] = set()
        self.attributes: set[str] = set()
        self.requested: set[str] = set()
        self.texts: set[str] = set()
        for node in (node for statement in statements for node in ast.walk(statement)):
            match node:
                case ast.Import() | ast.ImportFrom():
                    self._add_import(node)
                case ast.Expr(value=ast.Constant() as docstring):
                    docstring.value = None  # the walk comes to it later
                case ast.Constant(value=str(text)):
                    self.texts.add(text)
                case ast.arg(arg=name):
                    self.requested.add(name)
                case ast.Name(id=name):
                    self.used.add(name)
                case ast.Attribute(attr=name):
                    self.attributes.add(name)
                case _:
                    pass

    def _add_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for one in node.names:
            if isinstance(node, ast.Import):
                bound = one.asname or one.name.partition(".")[0]
                modules = {one.name}
            else:
                bound = one.asname or one.name
                modules = {f"{node.module}", f"{node.module}.{one.name}"}
            self.imported.setdefault(bound, set()).update(modules)

    @property
    def modules(self) -> set[str]:
        named = {text.partition(":")[0] for text in self.texts}  # also `module:function`
        started = {f"{name}.__main__" for name in named} if "-m" in self.texts else set[str]()
        named = {name for name in named if "." in name} | started
        return named.union(*self.imported.values())

    @property
    def starts_process(self) -> bool:
        return bool(STARTS & self.attributes.union(*self.imported.values()))

    def names(self, path: str) -> bool:
        """Whether a text is the path, or the end of it."""
        return any(f"/{path}".endswith(f"/{text}") for text in self.texts)

    def names_folder(self, path: str) -> bool:
        """Whether a text is a folder of the path, or a pattern for it."""
        return any(
            path.startswith(f"{text.rstrip('/')}/")
            or (PATTERN.search(text) and fnmatch(path, text))
            for text in self.texts
        )
