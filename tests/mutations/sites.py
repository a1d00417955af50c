"""Where the source makes something durable, checks a hash, a limit or a link; each can be left out.

Found in the syntax tree, so that a new one is found without being listed. Only the standard library
is used here: this is loaded before anything else (hook/sitecustomize.py).
"""

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "mergepipe"

_SYNCS = frozenset(("fsync", "fdatasync", "sync_directory"))
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
# Screens, methods and modes of shared files keep nobody out.
_ELSEWHERE = (
    "bytestore/sharing.py",
    "cli/",
    "report/",
    "methods/",
    "kernels/",
    "plans/",
    "planner/mergekit/",
    "hub/pages/",
)


@dataclass(frozen=True, slots=True)
class Site:
    """One check that can be taken away. `number` counts those of a file, from 0."""

    file: str
    number: int
    line: int
    kind: str
    text: str

    @property
    def name(self) -> str:
        """As it is called on a command line."""
        return f"{self.file}:{self.number}"


def sites() -> Iterator[Site]:
    """All of them, by file and line."""
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        if file.startswith(_ELSEWHERE):
            continue
        source = path.read_text()
        for number, (node, kind, _) in enumerate(_found(ast.parse(source))):
            text = " ".join((ast.get_source_segment(source, node) or "").split())
            yield Site(file, number, getattr(node, "lineno", 0), kind, text)


def without(source: str, number: int) -> ast.Module:
    """The module with one of its sites taken away."""
    tree = ast.parse(source)
    node, _, instead = list(_found(tree))[number]
    _Replacement(node, instead).visit(tree)
    return ast.fix_missing_locations(tree)


class _Replacement(ast.NodeTransformer):
    def __init__(self, node: ast.AST, instead: ast.AST) -> None:
        self._node = node
        self._instead = instead

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._node:
            return ast.copy_location(self._instead, node)
        return super().generic_visit(node)


def _found(tree: ast.AST) -> Iterator[tuple[ast.AST, str, ast.AST]]:
    """The node, what it is, and what stands in its place without it; in the order of the source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _calls(node)
        elif isinstance(node, ast.Compare):
            yield from _comparisons(node)
        elif isinstance(node, ast.Attribute) and node.attr == "O_NOFOLLOW":
            yield node, "link", ast.Constant(0)
        elif isinstance(node, ast.keyword) and node.arg == "max_length":
            yield node, "limit", ast.keyword("max_length", ast.Constant(None))


def _calls(node: ast.Call) -> Iterator[tuple[ast.AST, str, ast.AST]]:
    name = _name(node.func)
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


def _comparisons(node: ast.Compare) -> Iterator[tuple[ast.AST, str, ast.AST]]:
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
