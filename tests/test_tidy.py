"""Style as a test: who may import whom, how large things may grow, what the core must not touch.

The rules are DESIGN's, section 2, read off the syntax trees, so that an import inside a function or
under TYPE_CHECKING counts like any other.  Each check takes sources and returns findings as text;
the first half of the tests asks for no findings in src/freehold (and for no overgrown file beside
it), the second half plants violations and asks for each to be found.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "freehold"
BESIDE = ("tests", "benchmarks", "tools", "examples")  # sizes count there too
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
FUNCTION_LINES_MEDIAN = 8
CLASS_METHODS_MAX = 25
COLUMNS_MAX = 100

FACE = ("options", "ref", "remote", "actor", "api", "groups", "nodes")
PUBLIC = ("", *FACE, "errors", "config")  # "" is the package itself: `import freehold`
TOOLS = ("gateway", "dashboard", "ext")
# layer -> what of freehold it may import: a layer's name, or one module of it by its dotted name.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "": PUBLIC,
    "errors": (),
    "config": ("errors",),
    "core": ("core", "errors"),
    "wire": ("wire", "core.ids", "core.messages", "errors"),
    "io": ("io", "errors", "config"),
    "proc": ("proc", "core", "wire", "io", "config", "errors"),
    "sim": ("sim", "core", "wire", "config", "errors"),
    **dict.fromkeys(FACE, (*FACE, "proc", "wire.serial", "core.ids", "config", "errors")),
    **dict.fromkeys(TOOLS, (*TOOLS, *PUBLIC)),
    "cli": (*TOOLS, *PUBLIC, "cli", "proc", "sim"),
    "__main__": ("cli",),
}
CORE_STDLIB = {
    "__future__", "collections", "enum", "hashlib", "heapq", "math", "struct", "typing", "zlib",
}  # fmt: skip
SYSCALLS = {
    "asyncio", "fcntl", "glob", "logging", "mmap", "multiprocessing", "os", "pathlib", "random",
    "secrets", "select", "selectors", "shutil", "signal", "socket", "ssl", "subprocess",
    "tempfile", "threading", "time",
}  # fmt: skip
# layer -> modules outside freehold that it must not import.
NEVER: dict[str, set[str]] = {
    "wire": SYSCALLS,
    "sim": {"asyncio", "multiprocessing", "socket", "subprocess", "threading", "time"},
}
MARKS = r"\b(?:TODO|FIXME|XXX)\b|pytest\.(?:mark\.)?(?:skip|xfail)"
HOMES = r"/(?:home|Users)/\w+|(?<!\w)/root/"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Sources = dict[str, str]  # dotted module name, packages without ".__init__" -> its text


# --- reading --------------------------------------------------------------------------------------


def sources() -> Sources:
    """Read every module of the package."""
    found: Sources = {}
    for path in sorted((ROOT / "src" / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text(encoding="utf-8")
    return found


def beside() -> Sources:
    """Read every file beside the package, by its path."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for folder in BESIDE
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def packages(modules: Iterable[str]) -> set[str]:
    """Return the modules that contain others."""
    return {name.rpartition(".")[0] for name in modules}


def layer(module: str) -> str:
    """Return a module's layer: its first component below the package."""
    return ".".join(module.split(".")[1:2])


def imports(module: str, tree: ast.AST, modules: set[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of each import in it; a submodule of ours by its own name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".") + ([""] if module in packages(modules) else [])
                base = ".".join(filter(None, [*here[: -node.level], base]))
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in modules else base


# --- the checks -----------------------------------------------------------------------------------


def check_layers(texts: Sources) -> list[str]:
    """Find imports that the layers forbid."""
    found = []
    for module, text in texts.items():
        mine = layer(module)
        if mine not in MAY_IMPORT:
            found.append(f"{module}: no layer of the design is called {mine!r}")
            continue
        for line, name in imports(module, ast.parse(text), set(texts)):
            if reason := forbidden(mine, name):
                found.append(f"{module}:{line}: {reason}")
    return found


def forbidden(mine: str, name: str) -> str:
    """Return why that layer may not import that module, or '' if it may."""
    top = name.partition(".")[0]
    if top == PACKAGE:
        inner = name.partition(".")[2]
        if inner in MAY_IMPORT[mine] or layer(name) in MAY_IMPORT[mine]:
            return ""
        return f"{mine or PACKAGE} imports {name}"
    if mine == "core" and top not in CORE_STDLIB:
        return f"core imports {name}"
    if mine in ("errors", "config") and top not in sys.stdlib_module_names | {"msgspec"}:
        return f"{mine} imports {name}"
    return f"{mine} imports {name}" if top in NEVER.get(mine, ()) else ""


def check_cycles(texts: Sources) -> list[str]:
    """Find import cycles of two modules or more (Tarjan's components)."""
    edges = {
        module: sorted(
            {name for _, name in imports(module, ast.parse(text), set(texts)) if name in texts}
            - {module}
        )
        for module, text in texts.items()
    }
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[str] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in edges[module]:
            if other not in order:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == order[module]:
            cycle = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(cycle) > 1:
                found.append("import cycle: " + " ".join(sorted(cycle)))

    for module in edges:
        if module not in order:
            visit(module)
    return found


def check_sizes(texts: Sources) -> list[str]:
    """Find files, functions, classes and lines that have outgrown their room."""
    found = []
    for module, text in texts.items():
        lines = text.splitlines()
        if len(lines) > FILE_LINES_MAX:
            found.append(f"{module}: {len(lines)} lines")
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS_MAX:
                found.append(f"{module}:{number}: {len(line)} columns")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, FUNCTIONS) and length(node) > FUNCTION_LINES_MAX:
                found.append(f"{module}:{node.lineno}: {node.name} has {length(node)} lines")
            if isinstance(node, ast.ClassDef):
                methods = sum(isinstance(inner, FUNCTIONS) for inner in node.body)
                if methods > CLASS_METHODS_MAX:
                    found.append(f"{module}:{node.lineno}: {node.name} has {methods} methods")
    return found


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines a function takes, from `def` to its end."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def check_marks(texts: Sources) -> list[str]:
    """Find marks of unfinished work, and paths of the machine it was written on."""
    unwanted = re.compile("|".join([MARKS, HOMES, re.escape(f"{ROOT}/")]))
    return [
        f"{module}:{number}: {match[0]!r}"
        for module, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if (match := unwanted.search(line))
    ]


def check_core(texts: Sources) -> list[str]:
    """Find what makes a core machine differ from run to run, or wait."""
    return [
        f"{module}:{line}: {what}"
        for module, text in texts.items()
        if layer(module) == "core"
        for line, what in impurities(ast.parse(text))
    ]


def impurities(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, what) of each use of async, id(), hash(), or the order of a set."""
    names, free = set_names(tree), order_free(tree)
    for node in ast.walk(tree):
        if node in free:
            continue
        if isinstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)):
            yield node.lineno, "async"
        elif isinstance(node, (ast.For, ast.comprehension)) and is_set(node.iter, names):
            yield node.iter.lineno, "iterates over a set"
        elif isinstance(node, ast.Starred) and is_set(node.value, names):
            yield node.lineno, "unpacks a set"
        elif isinstance(node, ast.keyword) and called(node.value) in BANNED:
            yield node.value.lineno, f"passes {called(node.value)}"
        elif isinstance(node, ast.Call):
            if called(node.func) in BANNED:
                yield node.lineno, f"calls {called(node.func)}()"
            elif called(node.func) in ORDERED and any(is_set(a, names) for a in node.args):
                yield node.lineno, f"{called(node.func)}() of a set"
            elif not node.args and ast.unparse(node.func).removesuffix(".pop") in names:
                yield node.lineno, "pops from a set"


BANNED = {"id", "hash", "__import__", "eval", "exec", "open", "print", "input"}
ORDER_FREE = {"all", "any", "frozenset", "max", "min", "set", "sorted", "sum"}
ORDERED = {"list", "tuple", "iter", "enumerate", "map", "filter", "zip", "deque", "reversed"}
SET_TYPE = re.compile(r"(?:frozenset|set|Set|AbstractSet)\b")
SET_METHODS = {"union", "intersection", "difference", "symmetric_difference"}


def order_free(tree: ast.AST) -> set[ast.AST]:
    """Return the comprehension clauses whose order cannot be seen in the result."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.SetComp):
            found.update(node.generators)
        elif isinstance(node, ast.Call) and called(node.func) in ORDER_FREE and not node.keywords:
            for argument in node.args:
                if isinstance(argument, (ast.GeneratorExp, ast.ListComp)):
                    found.update(argument.generators)
    return found


def called(node: ast.expr) -> str:
    """Return the plain name that an expression is, or ''."""
    return node.id if isinstance(node, ast.Name) else ""


def set_names(tree: ast.AST) -> set[str]:
    """Return the names and attributes that the module makes or declares as sets, as source."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and is_set(node.value, found):
            found.update(ast.unparse(target) for target in node.targets)
        elif isinstance(node, (ast.AnnAssign, ast.arg)) and node.annotation is not None:
            kind = ast.unparse(node.annotation).strip("'\"")
            if SET_TYPE.match(kind):
                found.add(node.arg if isinstance(node, ast.arg) else ast.unparse(node.target))
    return found


def is_set(node: ast.expr, names: set[str]) -> bool:
    """Return whether an expression is known to be a set."""
    if isinstance(node, (ast.Set, ast.SetComp)):
        return True
    if isinstance(node, ast.BinOp) and isinstance(
        node.op, (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
    ):
        return is_set(node.left, names) or is_set(node.right, names)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in SET_METHODS:
            return True
        return called(node.func) in {"set", "frozenset"}
    return isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) in names


# --- the package keeps them -----------------------------------------------------------------------

CHECKS: list[Callable[[Sources], list[str]]] = [
    check_layers,
    check_cycles,
    check_sizes,
    check_marks,
    check_core,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_package_is_tidy(check: Callable[[Sources], list[str]]) -> None:
    found = check(sources())
    assert not found, "\n".join(["", *found])


def test_nothing_beside_it_is_overgrown() -> None:
    """But for classes: a model has a method for each rule, a bench for each thing that can be."""
    found = [text for text in check_sizes(beside()) if not text.endswith(" methods")]
    assert not found, "\n".join(["", *found])


def test_there_is_a_package_to_check() -> None:
    assert {f"{PACKAGE}.errors", f"{PACKAGE}.core.machine"} <= set(sources())
    assert {name.partition("/")[0] for name in beside()} == set(BESIDE)


def test_median_function_is_reported(record_property: Callable[[str, object], None]) -> None:
    lengths = [
        length(node)
        for text in sources().values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, FUNCTIONS)
    ]
    median = statistics.median(lengths)
    record_property("median_function_lines", median)
    print(f"{len(lengths)} functions, median {median} lines (aim: {FUNCTION_LINES_MEDIAN})")


# --- the checks find what is planted --------------------------------------------------------------

BROKEN_LAYERS = [
    ("freehold.errors", "import freehold.config"),
    ("freehold.config", "from freehold.core import ids"),
    ("freehold.core.process.owner", "import time"),
    ("freehold.core.process.owner", "from os import path"),
    ("freehold.core.process.owner", "def f():\n    import random"),
    ("freehold.core.process.owner", "if TYPE_CHECKING:\n    from freehold.io import net"),
    ("freehold.core.process.owner", "from ...wire import frame"),
    ("freehold.core.process.owner", "from asyncio import sleep"),
    ("freehold.core.process.owner", "import weakref, threading"),
    ("freehold.wire.frame", "from freehold.core.process.owner import Owner"),
    ("freehold.wire.frame", "import socket"),
    ("freehold.io.net", "from freehold.core import messages"),
    ("freehold.io.net", "from freehold import wire"),
    ("freehold.proc.host", "from freehold import api"),
    ("freehold.proc.host", "import freehold"),
    ("freehold.sim.world", "import time"),
    ("freehold.sim.world", "from freehold.proc import host"),
    ("freehold.api", "from freehold.io import net"),
    ("freehold.api", "from freehold.core.process.owner import Owner"),
    ("freehold.ext.demo", "from freehold.core import ids"),
    ("freehold.ext.demo", "from freehold.wire import serial"),
    ("freehold.cli", "from freehold.io import net"),
    ("freehold.misc", ""),
]
SOUND_LAYERS = [
    ("freehold.core.process.owner", "from collections import deque\nfrom freehold.errors import E"),
    ("freehold.core.process.owner", "from .. import ids\nfrom ..ids import RefId"),
    ("freehold.wire.frame", "from freehold.core import ids\nimport msgspec, hmac"),
    ("freehold.io.net", "import os, socket\nfrom freehold import config"),
    (
        "freehold.proc.host",
        "from freehold.core.process.owner import Owner\nfrom freehold.io import net",
    ),
    ("freehold.api", "from freehold.wire import serial\nfrom freehold.core.ids import RefId"),
    ("freehold.ext.demo", "import freehold as fh\nfrom freehold.api import get"),
    ("freehold.cli", "from freehold.sim import world\nfrom freehold.ext import demo"),
]
EVERY_MODULE = [
    "freehold", "freehold.core", "freehold.core.ids", "freehold.core.messages",
    "freehold.core.process.owner", "freehold.wire", "freehold.wire.frame", "freehold.wire.serial",
    "freehold.io", "freehold.io.net", "freehold.proc", "freehold.proc.host", "freehold.api",
    "freehold.config", "freehold.sim", "freehold.sim.world", "freehold.ext", "freehold.ext.demo",
]  # fmt: skip


@pytest.mark.parametrize(("module", "text"), BROKEN_LAYERS)
def test_forbidden_import_is_found(module: str, text: str) -> None:
    assert check_layers(dict.fromkeys(EVERY_MODULE, "") | {module: text})


@pytest.mark.parametrize(("module", "text"), SOUND_LAYERS)
def test_allowed_import_passes(module: str, text: str) -> None:
    assert not check_layers(dict.fromkeys(EVERY_MODULE, "") | {module: text})


def test_cycles_are_found_wherever_the_import_stands() -> None:
    texts = {
        "freehold.core": "",
        "freehold.core.a": "from freehold.core import b",
        "freehold.core.b": "def f():\n    from .c import g",
        "freehold.core.c": "if TYPE_CHECKING:\n    import freehold.core.a",
        "freehold.core.d": "from . import a",
    }
    assert check_cycles(texts) == ["import cycle: freehold.core.a freehold.core.b freehold.core.c"]
    assert not check_cycles(texts | {"freehold.core.c": "import enum"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n" * 501, "501 lines"),
        ("def f():\n" + "    x = 1\n" * 60, "f has 61 lines"),
        ("class C:\n" + "    def m(self): ...\n" * 26, "C has 26 methods"),
        ("x = '" + "é" * 100 + "'", "106 columns"),
    ],
)
def test_outgrown_things_are_found(text: str, says: str) -> None:
    assert [finding for finding in check_sizes({"freehold.api": text}) if says in finding]


def test_full_rooms_pass() -> None:
    text = "def f():\n" + "    x = 1\n" * 59 + "class C:\n" + "    def m(self): ...\n" * 25
    assert not check_sizes({"freehold.api": text + "x = 1\n" * 414})


@pytest.mark.parametrize(
    "text",
    [
        "# TO" + "DO: later",
        "x = 1  # FIX" + "ME",
        "pytest.sk" + "ip('later')",
        "PATH = '/ho" + "me/somebody/x'",
        "PATH = '/ro" + "ot/x'",
        f"PATH = '{ROOT}/x'",
    ],
)
def test_marks_are_found(text: str) -> None:
    assert check_marks({"freehold.api": text})


@pytest.mark.parametrize(
    "text",
    [
        "async def f(): ...",
        "for x in {1, 2}: ...",
        "for x in set(y): ...",
        "z = [x for x in frozenset(y)]",
        "for x in a.keys() | {1}: ...",
        "for x in a.union(b): ...",
        "s = set()\nfor x in s: ...",
        "class C:\n    def f(self):\n        self.s: set[int] = set()\n        list(self.s)",
        "def f(s: set[int]):\n    return (*s,)",
        "s = {1}\nx = s.pop()",
        "s = {1}\nx = {y: 0 for y in s}",
        "s = {1}\nx = min((y for y in s), key=f)",
        "x = id(y)",
        "x = hash(y)",
        "x = sorted(y, key=id)",
        "x = __import__('time')",
    ],
)
def test_impure_core_is_found(text: str) -> None:
    assert check_core({"freehold.core.process.owner": text})


@pytest.mark.parametrize(
    "text",
    [
        "s = {1}\nfor x in sorted(s): ...",
        "s: set[int] = set()\nx = 1 in s\ns.add(2)\nn = len(s)",
        "d = {1: 2}\nfor x in d: ...\nd.pop(1)",
        "def f(id, hash): return g(id, hash)",
        "for x in a | b: ...",
        "s = {1}\ns = {y for y in s if y}\nn = sum(y for y in s)",
    ],
)
def test_pure_core_passes(text: str) -> None:
    assert not check_core({"freehold.core.process.owner": text})
