"""What is typed out of habit of git, and has another name here or none."""

import re
from itertools import pairwise

_COMMANDS = {
    "add": "nothing is staged: `mp commit` takes what is there, `mp commit PATH...` these files",
    "stash": "`mp commit -b NAME` keeps what is here on a branch of its own",
    "rm": "remove the file, then `mp commit`; `mp branch -d` and `mp tag -d` remove names",
    "mv": "move the file, then `mp commit`: nothing is stored again",
    "restore": "`mp checkout REV` writes a model here, `mp show REV:PATH` prints one file",
    "rebase": "history is only added to: `mp merge`, `mp revert`, `mp commit --amend`",
    "cherry-pick": "`mp merge HEAD REV --base REV~1 --method task_arithmetic` adds its change",
    "cat-file": "`mp show REV:PATH` prints a file",
    "ls-files": "`mp ls` lists the files of a commit",
    "ls-tree": "`mp ls` lists the files of a commit",
    "blame": "`mp explain REV` tells which experts made it what it is",
}
_UNKNOWN_COMMAND = re.compile(r"No such command '([^']*)'")
_GUESS = re.compile(r" Did you mean '([^']*)'\?$")


def pointer(said: str, asked: str) -> str:
    """What to do instead, given the parser's complaint and the command it is about; or nothing."""
    unknown = _UNKNOWN_COMMAND.match(said)
    if unknown is not None and asked == "mp":
        guess = _GUESS.search(said)
        return _COMMANDS.get(unknown[1]) or (f"did you mean `mp {guess[1]}`?" if guess else "")
    if asked == "mp checkout" and said.startswith("No such option: -b"):
        return "`mp switch -c NAME` makes a branch here and goes to it"
    return ""


def without_guess(said: str) -> str:
    """The parser's complaint without what it thinks was meant, which the hint says."""
    return _GUESS.sub("", said)


def with_head(arguments: list[str]) -> list[str]:
    """`mp checkout -- PATH` and `mp log -- PATH` with the revision that git takes there: HEAD."""
    for name in ("checkout", "log"):
        if name in arguments and "--" in arguments[arguments.index(name) :]:
            start, end = arguments.index(name) + 1, arguments.index("--")
            values = {"-n", "--to", "--tensor", "--since", "--until", "--author", "--contains"}
            given = [
                each
                for before, each in pairwise(arguments[start - 1 : end])
                if not each.startswith("-") and before not in values
            ]
            return arguments if given else [*arguments[:end], "HEAD", *arguments[end:]]
    return arguments


def without_help_command(arguments: list[str]) -> list[str]:
    """`mp help [COMMAND]` as `mp [COMMAND] --help`."""
    return [*arguments[1:], "--help"] if arguments[:1] == ["help"] else arguments


def with_part(arguments: list[str]) -> list[str]:
    """`mp fsck --read-data=5%`, which the parser takes for a value that a flag has not got."""
    if "fsck" not in arguments:
        return arguments
    return [each.replace("--read-data=", "--read-part=", 1) for each in arguments]
