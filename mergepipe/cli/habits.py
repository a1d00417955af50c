"""What is typed out of habit of git or mergekit, and has another name here or none."""

import re
from itertools import pairwise

_COMMANDS = {
    "add": "nothing is staged: `mp commit` takes what is there, `mp commit PATH...` these files",
    "stash": "`mp commit -b NAME` keeps what is here on a branch of its own",
    "rm": "remove the file, then `mp commit`; `mp branch -d` and `mp tag -d` remove names",
    "mv": "move the file, then `mp commit`: nothing is stored again",
    "restore": "`mp checkout REV -- PATH` brings one file back, `mp checkout REV` a whole model",
    "rev-parse": "`mp log -n 1 --oneline REV` shows its id, `mp show REV --json` all of it",
    "describe": "`mp log --oneline` has the tags beside the commits, `mp tag` lists them",
    "clean": "`mp status` lists what no commit has: remove what you do not want",
    "ls-remote": "`mp fetch`, then `mp branch -r`, lists what a remote has",
    "whatchanged": "`mp log`, and `mp diff REV~1 REV` for what a commit changed",
    "shortlog": "`mp log --author NAME --oneline` lists somebody's commits",
    "worktree": "`mp checkout REV --to DIR` writes a model anywhere",
    "submodule": "a model is one directory: commit each on a branch of its own",
    "format-patch": "`mp push` and `mp fetch` carry commits: a remote may be a path on a disk",
    "rebase": "history is only added to: `mp merge`, `mp revert`, `mp commit --amend`",
    "cherry-pick": "`mp merge HEAD REV --base REV~1 --method task_arithmetic` adds its change",
    "cat-file": "`mp show REV:PATH` prints a file",
    "ls-files": "`mp ls` lists the files of a commit",
    "ls-tree": "`mp ls` lists the files of a commit",
    "blame": "`mp explain REV` tells which experts made it what it is",
    "bisect": "`mp log` lists the commits, `mp checkout REV --to DIR` writes one to test",
    "extract-lora": "mergekit makes adapters: `mergekit-extract-lora`; `mp commit` stores them",
    "tokensurgeon": "`mergekit-tokensurgeon` does that; a recipe's `tokenizer:` joins vocabularies",
    "moe": "`mergekit-moe` makes these; `mp commit DIR` stores what it made",
}
_REMOTES = "`mp remote -v` says where each one is"
_REMOTE_COMMANDS = {
    "remove": "`mp remote rm NAME` removes one",
    "show": _REMOTES,
    "get-url": _REMOTES,
    "prune": "`mp fetch NAME --prune` forgets branches that are no longer there",
    "update": "`mp fetch NAME` asks one",
}
_ATOMIC = "a merge is made as a whole or not at all: there is none to go on with or to give up"
_COMMITS = "a merge is always one commit, of all its inputs: leave it out"
_IN_BLOCKS = "leave it out: weights are read block by block, and no code of a model is run"
_HABITS = {
    ("merge", "--abort"): _ATOMIC,
    ("merge", "--continue"): _ATOMIC,
    ("merge", "--no-ff"): _COMMITS,
    ("merge", "--ff-only"): f"{_COMMITS}; `mp branch -f NAME REV` moves a branch",
    ("merge", "--squash"): _COMMITS,
    ("merge", "--cuda"): "--device cuda computes there",
    ("merge", "--t"): "a method's own parameters are given with -p, as -p t=0.5",
    ("merge", "--weights"): "--weight 0.7,0.3 gives each expert its own",
    ("merge", "--lazy-unpickle"): _IN_BLOCKS,
    ("merge", "--low-cpu-memory"): _IN_BLOCKS,
    ("merge", "--trust-remote-code"): _IN_BLOCKS,
    ("merge", "--copy-tokenizer"): "leave it out: the base's tokenizer files come along",
    ("merge", "--allow-crimes"): "leave it out: what fits is merged, and what does not is named",
    ("commit", "-a"): "leave it out: a commit takes all that is there",
    ("commit", "--all"): "leave it out: a commit takes all that is there",
    ("branch", "--list"): "`mp branch` alone lists them, `mp branch --all` those of remotes too",
    ("branch", "-D"): "-d -f removes one whose commits nothing else holds",
    ("pull", "--rebase"): "history is only added to: `mp fetch`, then `mp merge`",
    ("checkout", "-b"): "`mp switch -c NAME` makes a branch here and goes to it",
    ("diff", "--cached"): "nothing is staged: `mp status` lists what a commit would take",
    ("diff", "--staged"): "nothing is staged: `mp status` lists what a commit would take",
    ("diff", "--name-only"): "`mp diff --json` lists changed files among the rest",
    ("diff", "--name-status"): "`mp diff --json` lists changed files among the rest",
    ("fetch", "--all"): "`mp fetch NAME` asks one remote; `mp remote` lists them",
    ("tag", "-l"): "`mp tag` alone lists them",
    ("tag", "--list"): "`mp tag` alone lists them",
    ("tag", "-a"): "leave it out: `mp tag NAME -m MSG` keeps a message",
    ("log", "--reverse"): "history is listed newest first; `mp log --json` gives it to a script",
    ("diff", "--stat"): "leave it out: `mp diff` has one line for each tensor",
    ("log", "-p"): "`mp diff REV~1 REV` shows what a commit changed",
    ("log", "--stat"): "`mp diff REV~1 REV` shows what a commit changed",
    ("status", "-s"): "`mp status --json` is for scripts",
    ("status", "--porcelain"): "`mp status --json` is for scripts",
    (
        "config",
        "--global",
    ): "settings are of a repository; MP_AUTHOR says everywhere who commits",
    ("gc", "--aggressive"): "leave it out: `mp gc` frees all that nothing needs",
}
_UNKNOWN_COMMAND = re.compile(r"No such command '([^']*)'")
_UNKNOWN_OPTION = re.compile(r"No such option: ([-\w]+)")
_WITHOUT_VALUE = re.compile(r"Option '([^']+)' requires an argument")
_GUESS = re.compile(r" Did you mean '([^']*)'\?$")


def pointer(said: str, asked: str) -> str:
    """What to do instead, given the parser's complaint and the command it is about; or nothing."""
    unknown = _UNKNOWN_COMMAND.match(said)
    if unknown is not None and asked == "mp remote" and unknown[1] in _REMOTE_COMMANDS:
        return _REMOTE_COMMANDS[unknown[1]]
    if unknown is not None and asked == "mp":
        guess = _GUESS.search(said)
        return _COMMANDS.get(unknown[1]) or (f"did you mean `mp {guess[1]}`?" if guess else "")
    if asked == "mp diff" and said.startswith("Missing argument"):
        return "`mp status` lists what was changed here, `mp diff REV` compares a commit with HEAD"
    option = _UNKNOWN_OPTION.match(said) or _WITHOUT_VALUE.match(said)
    return "" if option is None else _HABITS.get((asked.removeprefix("mp "), option[1]), "")


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
