"""A tokenizer as a merge sees it: which token has which id, and how it is recognised."""

from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

# The special tokens that transformers knows by role, in the order in which it adds missing ones.
ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


class AddedToken(Struct, frozen=True):
    """A token that is found in the text before the model of the tokenizer sees it.

    The flags are those of the `tokenizers` library: only whole words; spaces beside it are eaten;
    looked for in the normalized text; left out when decoding without special tokens.
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False


class Vocabulary(Struct, frozen=True):
    """The tokens of one tokenizer.

    ids            token to id, added tokens included; the id is the row of the embeddings
    added          the added tokens by content, in the order of their ids
    roles          `bos_token` and so on to the token's content
    chat_template  the default template, if the files have one
    """

    ids: Mapping[str, int]
    added: Mapping[str, AddedToken] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    chat_template: str | None = None

    @property
    def end(self) -> int:
        """The first id after all that are used."""
        return max(self.ids.values(), default=-1) + 1

    def below(self, rows: int) -> "Vocabulary":
        """Without the tokens whose ids are `rows` or more: embeddings of so many rows lack them."""
        if self.end <= rows:
            return self
        ids = {token: place for token, place in self.ids.items() if place < rows}
        added = {token: flags for token, flags in self.added.items() if token in ids}
        return replace(self, ids=ids, added=added)
