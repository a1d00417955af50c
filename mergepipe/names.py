"""Names that came from outside (tensors, files, metadata), made fit for a terminal or a message.

safetensors accepts any UTF-8 string as a tensor name: `../../etc/x`, NUL, escape sequences. Such
names are data, never paths, and are printed only through here.
"""

SHOWN = 200
"""Characters of a name that a message shows."""


def escape_for_terminal(name: str, limit: int | None = None) -> str:
    r"""`name` with all that is not printable as `\n`, `\x1b` or `\u202e`; `\` becomes `\\`.

    Covers control characters, escape sequences, bidirectional overrides, zero-width and private
    characters and lone surrogates. Different names give different results, unless `limit` (in
    characters of the name) cuts them off.
    """
    cut = limit is not None and len(name) > limit
    shown = name[:limit] if cut else name
    if not (shown.isprintable() and "\\" not in shown):
        shown = "".join(
            char
            if char.isprintable() and char != "\\"
            else char.encode("unicode_escape", "surrogatepass").decode("ascii")
            for char in shown
        )
    return f"{shown}..." if cut else shown


def quoted(name: str) -> str:
    """`name` as messages show it: escaped, in quotes, shortened."""
    return f"'{escape_for_terminal(name, SHOWN)}'"
