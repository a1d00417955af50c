"""One error tree. Every class has a process exit code and a `kind`, the stable name scripts see.

Messages say what went wrong and where; `hint` says what to do next.
"""

from typing import ClassVar


class MergepipeError(Exception):
    """Base of every error raised on purpose; `exit_code` and `kind` are what scripts rely on."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(MergepipeError):
    """The request makes no sense as typed."""

    exit_code = 2
    kind = "usage"


class RevisionNotFound(MergepipeError):
    """No object answers to this revision."""

    kind = "revision_not_found"


class Purged(RevisionNotFound):
    """A model that was removed for good; who did it, when and why stands in the message."""

    kind = "purged"


class AmbiguousRevision(MergepipeError):
    """An id prefix names more than one object."""

    kind = "ambiguous_revision"


class InvalidRefName(UsageError):
    """A branch or tag name that git's rules (and ours) refuse."""

    kind = "invalid_ref_name"


class RefExists(MergepipeError):
    """A branch or tag of that name is already there."""

    kind = "ref_exists"


class NothingToCommit(MergepipeError):
    """There is no file to commit."""

    kind = "nothing_to_commit"


class WorktreeDirty(MergepipeError):
    """The operation would overwrite files that differ from the recorded snapshot."""

    kind = "worktree_dirty"


class UnsafePath(MergepipeError):
    """A file path that must never be read into, or written out of, a snapshot."""

    kind = "unsafe_path"


class SourceChanged(MergepipeError):
    """A source file changed while it was being read."""

    kind = "source_changed"


class IncompleteCheckpoint(MergepipeError):
    """A checkpoint's index names a file or tensor that is not there."""

    kind = "incomplete_checkpoint"


class HookFailed(MergepipeError):
    """A hook refused the operation."""

    exit_code = 18
    kind = "hook_failed"


class ConfigError(MergepipeError):
    """A configuration file or value that cannot be used."""

    kind = "config"


class DamagedConfig(ConfigError):
    """A configuration file that is no text, or no TOML: nothing it says can be known."""


class NoRepository(MergepipeError):
    """No `.mergepipe` directory here or in any parent."""

    exit_code = 10
    kind = "no_repository"


class UnsafeRepository(MergepipeError):
    """A repository holds what none may hold, such as a link: somebody may mean harm."""

    kind = "unsafe_repository"


class NotMounted(MergepipeError):
    """A directory of another disk that holds packs or the index of a repository is not there."""

    kind = "not_mounted"


class Locked(MergepipeError):
    """Another process holds the lock."""

    exit_code = 11
    kind = "locked"


class NoLocks(MergepipeError):
    """A file system has no file locks that work, which is told by its name."""

    kind = "no_locks"


class NewerFormat(MergepipeError):
    """Whole as far as one can tell, and written by a later release than this one."""

    kind = "newer_format"


class Corruption(MergepipeError):
    """Bytes are not what they were declared to be, in the store or in a file that is read."""

    exit_code = 12
    kind = "corruption"


class MalformedFile(Corruption):
    """A checkpoint file that breaks its own format (truncated, overlapping, out of range...)."""

    kind = "malformed_file"


class CodecError(Corruption):
    """Encoded bytes that do not decode to a block of the declared length."""

    kind = "codec"


class MissingObject(Corruption):
    """An object or block that something refers to is in no pack."""

    kind = "missing_object"


class MergeInputError(MergepipeError):
    """The inputs of a merge do not fit each other or the method."""

    exit_code = 13
    kind = "merge_inputs"


class RefMoved(MergepipeError):
    """A ref was not at the value the caller expected."""

    exit_code = 14
    kind = "ref_moved"


class Diverged(MergepipeError):
    """Two branches that should follow each other have commits of their own."""

    kind = "diverged"


class NoSpace(MergepipeError):
    """The disk is full."""

    exit_code = 15
    kind = "no_space"


class AuthenticationError(MergepipeError):
    """A remote refused the credentials."""

    exit_code = 16
    kind = "auth"


class RemoteUnreachable(MergepipeError):
    """The other side did not answer, or the line broke and stayed broken."""

    kind = "remote_unreachable"


class RemoteRefused(MergepipeError):
    """The other side said no, or what it sent breaks the rules and was not taken."""

    exit_code = 18
    kind = "remote_refused"


class OverBudget(MergepipeError):
    """The budget is too small for anything useful."""

    exit_code = 17
    kind = "over_budget"
