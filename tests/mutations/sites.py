"""Where the source makes a thing durable, checks a hash, a limit or a link; each can be left out.

Found in the syntax tree, so that a new one is found without being listed, and called by the
function that it is in, so that it is called the same when other lines change. Only the standard
library is used here: this is loaded before anything else (hook/sitecustomize.py).
"""

import ast
import copy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "mergepipe"

_SYNCS = frozenset(("fsync", "fdatasync", "sync_directory", "sync_disk"))
_HASHES = frozenset(
    ("digest", "hexdigest", "block_id", "object_id", "sealed", "checksum", "identity_of", "sha256")
)
_LIMIT = re.compile(r"_?(?:[A-Z]+_)*(?:MAX|MOST|LARGEST|LONGEST|DEEPEST|SHORTEST)(?:_[A-Z]+)*")
# What is shown, tried again or chosen for speed is cut or counted, too: nobody is kept out by that.
_NO_GUARD = re.compile(
    r"SHOWN|NAMED|LOOKS|ROUNDS|RACES|REFRESHES|CANDIDATES|TIPS|WORDS|COMMAND|WAIT_S|CELLS|ROWS|HOPS"
    r"|MOVES|ATTEMPTS|DEATHS|CHANGE|CHECKOUT_S|TENSORS$|KEPT|POINTS|_READ_|FOLDERS"
)
_CHECKS = {
    "verify_payload": "hash",
    "check_count": "limit",
    "check_written": "limit",
    "check_limits": "limit",
    "check_tree": "link",
    "_plain": "link",
    "_refuse_repository": "link",
    "_refuse_unless_gone": "link",
}
# Screens, methods, modes of shared files and what is read ahead keep nobody out.
_ELSEWHERE = (
    "bytestore/ahead.py",
    "bytestore/sharing.py",
    "cli/",
    "report/",
    "methods/",
    "kernels/",
    "plans/",
    "planner/mergekit/",
    "planner/unmerged_files.py",
    "hub/pages/",
)


@dataclass(frozen=True, slots=True)
class Site:
    """One check that can be taken away. `function`: dotted; `number` counts those of one, from 1.

    at_import  it counts when the module is loaded, and never again
    """

    file: str
    function: str
    number: int
    line: int
    kind: str
    text: str
    at_import: bool

    @property
    def name(self) -> str:
        """As it is called on a command line, and in docs/mutations.md."""
        number = f":{self.number}" if self.number > 1 else ""
        return f"{self.file}:{self.function}{number}"


def sites() -> Iterator[Site]:
    """All of them, by file and line."""
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        if not file.startswith(_ELSEWHERE):
            source = path.read_text()
            yield from sorted((place.site for place in _places(source, file)), key=_by_line)


def removable(source: str, file: str) -> ast.Module:
    """The module, in which each site asks `__without__(its name)` whether it is there."""
    tree = ast.parse(source)
    places = {id(place.node): place for place in _places(source, file, tree)}
    _Asking(places).visit(tree)
    return ast.fix_missing_locations(tree)


@dataclass(frozen=True, slots=True)
class _Place:
    site: Site
    node: ast.AST
    instead: ast.expr


def _by_line(site: Site) -> int:
    return site.line


def _places(source: str, file: str, tree: ast.Module | None = None) -> Iterator[_Place]:
    counts: Counter[str] = Counter()
    for function, nodes in _functions(tree or ast.parse(source)):
        for node, kind, instead in _found(nodes):
            counts[function] += 1
            text = " ".join((ast.get_source_segment(source, node) or "").split())
            line = getattr(node, "lineno", 0)
            at_import = function[-1:] == ")"
            yield _Place(
                Site(file, function, counts[function], line, kind, text, at_import), node, instead
            )


def _functions(tree: ast.AST, name: str = "") -> Iterator[tuple[str, list[ast.AST]]]:
    """Each function's own nodes, in order; of what is in none, `(class)` or `(module)`."""
    own: list[ast.AST] = []
    pending = list(ast.iter_child_nodes(tree))
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _functions(node, f"{name}.{node.name}" if name else node.name)
            continue
        own.append(node)
        pending[:0] = ast.iter_child_nodes(node)
    inside = isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
    yield name if inside else f"({name or 'module'})", own


class _Asking(ast.NodeTransformer):
    def __init__(self, places: dict[int, _Place]) -> None:
        self._places = places

    def visit(self, node: ast.AST) -> ast.AST:
        place = self._places.get(id(node))
        node = super().generic_visit(node)
        if place is None:
            return node
        asked = ast.Call(ast.Name("__without__", ast.Load()), [ast.Constant(place.site.name)], [])
        if isinstance(node, ast.keyword):
            value = ast.IfExp(asked, place.instead, node.value)
            return ast.copy_location(ast.keyword(node.arg, value), node)
        assert isinstance(node, ast.expr)
        return ast.copy_location(ast.IfExp(asked, place.instead, node), node)


def _found(nodes: list[ast.AST]) -> Iterator[tuple[ast.AST, str, ast.expr]]:
    """The node, what it is, and what stands in its place without it; in the order of the source."""
    for node in nodes:
        if isinstance(node, ast.Call):
            yield from _calls(node)
        elif isinstance(node, ast.Compare):
            yield from _comparisons(node)
        elif isinstance(node, ast.Attribute) and node.attr == "O_NOFOLLOW":
            yield node, "link", ast.Constant(0)
        elif isinstance(node, ast.keyword) and node.arg == "max_length":
            yield node, "limit", ast.Constant(None)


def _calls(node: ast.Call) -> Iterator[tuple[ast.AST, str, ast.expr]]:
    name = _name(node.func)
    if name == "_plain" and len(node.args) < 2:
        return  # a path without `./`
    if name in _SYNCS:
        yield node, "fsync", ast.Constant(None)
    elif name in _CHECKS:
        kind = _CHECKS[name]
        instead = node.args[-1] if name == "_plain" else ast.Constant(None)
        yield node, kind, copy.deepcopy(instead)
    elif name == "compare_digest" or (
        name == "endswith" and any(_name(each) in _HASHES for each in node.args)
    ):
        yield node, "hash", ast.Constant(True)
    elif name in ("S_ISREG", "S_ISDIR"):
        yield node, "link", ast.Constant(True)
    elif name == "is_symlink":
        yield node, "link", ast.Constant(False)


def _comparisons(node: ast.Compare) -> Iterator[tuple[ast.AST, str, ast.expr]]:
    sides = [node.left, *node.comparators]
    if isinstance(node.ops[0], ast.Eq | ast.NotEq) and len(sides) == 2:
        if any(_name(each) in _HASHES for side in sides for each in ast.walk(side)):
            yield node, "hash", ast.Constant(isinstance(node.ops[0], ast.Eq))
        return
    if any(_name(side) == "st_nlink" for side in sides):
        yield node, "link", ast.Constant(isinstance(node.ops[0], ast.LtE))
    if not isinstance(node.ops[-1], ast.Lt | ast.LtE | ast.Gt | ast.GtE):
        return
    for side in sides:
        if any(_is_limit(_name(each)) for each in ast.walk(side)):
            infinity = ast.parse(
                "float('-inf')" if "SHORTEST" in ast.unparse(side) else "float('inf')", mode="eval"
            )
            yield side, "limit", infinity.body
            return


def _is_limit(name: str) -> bool:
    return _LIMIT.fullmatch(name) is not None and _NO_GUARD.search(name) is None


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
