"""One run of `mp`: what was asked of every command, and where its words go."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from mergepipe.bytestore.untrusted import is_real_directory
from mergepipe.cli.text import Paint, paint_for
from mergepipe.cli.trace import NoTrace, Trace
from mergepipe.errors import MissingObject, NoRepository
from mergepipe.names import quoted

if TYPE_CHECKING:
    from mergepipe.api import Repository
    from mergepipe.cli.progress import ClosableProgress
    from mergepipe.transfer.credentials import Credentials
    from mergepipe.transfer.urls import RemoteUrl


class Session(Struct, frozen=True):
    """The global options, the environment, and the way out to the terminal.

    `located` says that -C named a place, which then wins over MP_DIR.
    """

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    located: bool = False
    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    trace: Trace = field(default_factory=NoTrace)
    command: str = ""

    @property
    def paint(self) -> Paint:
        """Colours for stdout."""
        return paint_for(sys.stdout, self.environment)

    @property
    def paint_errors(self) -> Paint:
        """Colours for stderr."""
        return paint_for(sys.stderr, self.environment)

    @contextmanager
    def repository(self) -> Iterator["Repository"]:
        """The repository that this run is about, open. Raises NoRepository."""
        from mergepipe.api import Repository
        from mergepipe.api.identity import identity

        who = identity(self.environment)
        directory = self.repository_directory()
        if directory is None:
            opened = Repository.open(".", who=who, credentials=self.credentials)
        else:
            opened = Repository(directory, who=who, credentials=self.credentials)
        opened.environment = self.environment
        self.trace(f"opened {opened.directory}")
        if opened.config_damage is not None:
            self.say(f"warning: {opened.config_damage.message}; reading goes on with the defaults")
            self.say(f"hint: {opened.config_damage.hint}")
        if directory is None:  # else the user named it
            opened.guard = lambda: self.check_owner(opened.directory)
        opened.command = f"mp {self.command}".rstrip()
        with opened, opened.operations.operation(opened.command):
            try:
                yield opened
            except MissingObject as error:
                raise opened.explain_loss(error) from error

    def repository_directory(self) -> Path | None:
        """The `.mergepipe` that MP_DIR names, or None: look for one upwards from here."""
        named = self.environment.get("MP_DIR", "")
        if not named or self.located:
            return None
        from mergepipe.repository.layout import has_packs

        directory = Path(named).absolute()
        if not directory.is_dir():
            raise NoRepository(
                f"MP_DIR names {quoted(named)}, which is no directory", "unset it, or correct it"
            )
        if is_real_directory(directory / ".mergepipe"):
            return directory / ".mergepipe"
        if not has_packs(directory):
            raise NoRepository(f"MP_DIR names {quoted(named)}, which is no repository")
        return directory

    def check_owner(self, directory: Path) -> None:
        """Raise UnsafeRepository for another user's repository, unless the user said it is safe."""
        from mergepipe.repository.ownership import check_user

        check_user(directory, self.environment)

    def credentials(self, directory: Path | None = None) -> "Credentials":
        """Who we are to remotes: the environment's tokens, the user's and the repository's.

        `directory` is the repository's, if there is one. Raises ConfigError for a file of tokens
        that others can read.
        """
        from mergepipe.transfer.credentials import gather

        return gather(self.environment, directory, self.settings_home())

    def remember(self, url: "RemoteUrl") -> None:
        """Keep in mind that the user named this server: tokens of the environment may go there."""
        from mergepipe.transfer.credentials import HOSTS, SERVERS, VARIABLE, remember_server

        path = self.settings_home() / SERVERS
        if not remember_server(path, url) and self.environment.get(VARIABLE):
            self.say(f"cannot write {path}: set {HOSTS}={url.origin} beside {VARIABLE} next time")

    def settings_home(self) -> Path:
        """The directory of the user's own settings."""
        from mergepipe.repository.ownership import settings_home

        return settings_home(self.environment)

    def emit(self, document: object, text: str) -> None:
        """The result: the document as JSON, or the text; both on stdout."""
        if not self.as_json:
            if text:
                print(text)
            return
        encoded = msgspec.json.encode(document)
        if sys.stdout.isatty():
            encoded = msgspec.json.format(encoded, indent=2)
        print(encoded.decode())

    def say(self, text: str) -> None:
        """A message beside the result, on stderr; nothing with --quiet or --json."""
        if not (self.quiet or self.as_json):
            print(text, file=sys.stderr)

    def warn(self, text: str) -> None:
        """What nobody may miss, on stderr: with --quiet too; the document has it with --json."""
        if text and not self.as_json:
            print(text, file=sys.stderr)

    def note(self, text: str) -> None:
        """A message that only --verbose shows."""
        if self.verbose:
            print(text, file=sys.stderr)

    @contextmanager
    def progress(self, *, kernels: bool = True) -> Iterator["ClosableProgress"]:
        """What long work reports to: a bar, if a person is there to see it.

        Work that needs `kernels` begins with those that this installation has not compiled yet.
        """
        from mergepipe.cli.kernels import prepare
        from mergepipe.cli.progress import TerminalProgress, TracedProgress

        drawn = sys.stderr.isatty() and not self.quiet and self.environment.get("TERM") != "dumb"
        kind = TerminalProgress if drawn else TracedProgress
        progress = kind(self.trace, (lambda: prepare(self)) if kernels else None)
        try:
            yield progress
        finally:
            progress.close()
