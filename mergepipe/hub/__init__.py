"""A repository as a hub: the Hugging Face hub's protocol over branches (docs/hub.md).

Who lives here: `site` (all that `mp serve` answers over http) and `application` (each address of
the hub); `addresses` (what a path is about), `repositories` and `models` (what that is here);
`listings` and `files` (what is known of models), `resolving` with `decoding` (files as they are
sent); `uploads` with `objects` and `xet` (what clients send), `reception` with `requests`,
`passes` and `arrivals` (how it is taken in), `staging` (where it waits), `commit_body` and
`committing` (until it is a commit); `pages` (what people see in a browser); `work` (the threads
of all that), `errors`. Without a server: `filesystem` (for fsspec) and `loading` (models of
transformers).

What comes in: requests of the hub's clients, hostile until parsed. What goes out: JSON as the hub
has it, HTML, bytes of files, commits of branches.

What never happens here: nothing is stored in a way of its own; who may is decided by `transfer`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mergepipe.hub.loading import from_pretrained, tokenizer

__all__ = ["from_pretrained", "tokenizer"]


def __getattr__(name: str) -> Any:
    """Loaded when asked for: a server needs none of it."""
    if name in __all__:
        from mergepipe.hub import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
