"""Errors as users get them: a message, a hint and an exit code, or the same as JSON."""

import errno
import re
import sys
from pathlib import Path

import msgspec

from mergepipe.cli.text import Paint
from mergepipe.errors import Corruption, MergepipeError, NoSpace, UsageError
from mergepipe.names import quoted


class Interrupted(MergepipeError):
    """The user pressed Ctrl-C."""

    exit_code = 130
    kind = "interrupted"


class AccessDenied(MergepipeError):
    """The system does not let this user do that."""

    kind = "permission_denied"


class InputOutputError(MergepipeError):
    """The system could not read or write."""

    kind = "io"


class UnexpectedError(MergepipeError):
    """A mistake in mergepipe itself."""

    kind = "internal"


class ErrorBody(msgspec.Struct, frozen=True):
    """What `error` holds: `code` is the exit code, `kind` a stable name, `hint` what to do."""

    code: int
    kind: str
    message: str
    hint: str


class ErrorDocument(msgspec.Struct, frozen=True):
    """The document that takes the place of a result."""

    error: ErrorBody


def understood(error: BaseException) -> MergepipeError:
    """Any error as one that has a message, a hint and an exit code."""
    if isinstance(error, MergepipeError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted", "run the same command again; nothing is half done")
    if isinstance(error, OSError):
        return _system_error(error)
    if isinstance(error, MemoryError):
        return MergepipeError("out of memory", "close other programs, or lower core.threads")
    if _is_index_error(error):
        return _index_error(error)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return UnexpectedError(
        f"unexpected {what}", "this is a bug in mergepipe; MP_TRACE=1 shows where it happened"
    )


_MISSING = re.compile(r"Missing argument '([^']+)'")


def usage_error(message: str, context: str) -> UsageError:
    """What the parser of the command line objects to; `context` is the command, `mp log`."""
    told = message.rstrip(".")
    for theirs in (" is not a valid int range", " is not a valid int", " is not a valid integer"):
        if told.endswith(theirs):
            told = f"{told.removesuffix(theirs)} is not a whole number"
    if told.endswith(" is not a valid float"):
        told = f"{told.removesuffix(' is not a valid float')} is not a number"
    hint = f"`{context} --help` tells how it is used"
    if missing := _MISSING.fullmatch(told):
        hint = f"give one: `{context} {missing[1]}`; {hint}"
    if told.startswith("Invalid value for -C"):
        hint = "name a directory that is there, or leave -C out to work in this one"
    return UsageError(told, hint)


def document(error: MergepipeError) -> ErrorDocument:
    """An error for scripts."""
    return ErrorDocument(ErrorBody(error.exit_code, error.kind, error.message, error.hint))


def report(error: MergepipeError, *, as_json: bool, paint: Paint) -> None:
    """Tell the user: JSON on stdout, or `error:` and `hint:` lines on stderr."""
    if as_json:
        print(msgspec.json.encode(document(error)).decode(), flush=True)
        return
    if isinstance(error, Interrupted):
        # A terminal shows ^C where the cursor was.
        print("\ninterrupted" if sys.stderr.isatty() else "interrupted", file=sys.stderr)
        return
    print(f"{paint('red', 'error:')} {error.message}", file=sys.stderr)
    if error.hint:
        print(f"{paint('dim', 'hint:')} {error.hint}", file=sys.stderr)


def _system_error(error: OSError) -> MergepipeError:
    where = f" {quoted(str(error.filename))}" if error.filename is not None else ""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        on = f" on the disk of{where}" if where else " on the disk"
        return NoSpace(f"no space left{on}", "free some, or try `mp gc`; nothing was changed")
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessDenied(f"permission denied:{where or ' ' + reason}", _owner_hint(error))
    if error.errno == errno.EROFS:
        return AccessDenied(f"the file system is read-only:{where}")
    if isinstance(error, FileNotFoundError):
        return InputOutputError(f"there is no{where or ' such file'}")
    return InputOutputError(f"{reason}{':' + where if where else ''}")


def _owner_hint(error: OSError) -> str:
    if error.filename is None:
        return ""
    return f"check who owns it: ls -ld {quoted(str(Path(str(error.filename)).parent))}"


def _is_index_error(error: BaseException) -> bool:
    lmdb = sys.modules.get("lmdb")
    return lmdb is not None and isinstance(error, lmdb.Error)


def _index_error(error: BaseException) -> MergepipeError:
    text = str(error)
    # LMDB says it in words, and a full disk may also surface as an I/O error.
    if "No space left" in text:
        return NoSpace("no space left for the index", "free some, or try `mp gc`")
    if "Permission denied" in text or "Read-only" in text:
        return AccessDenied(f"the index cannot be used: {text}")
    return Corruption(
        f"the index is damaged: {text}",
        "it is only a cache: delete .mergepipe/index, and the next command makes it again",
    )
