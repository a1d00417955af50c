"""A model's vocabulary from the bytes of its tokenizer files, as transformers would load them.

`tokenizer.json` says most; tokens that only `tokenizer_config.json` or `special_tokens_map.json`
name come after it. Without it: `vocab.json`, `vocab.txt`, or the pieces of a sentencepiece model,
and the added tokens of the files beside them.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from mergepipe.errors import MalformedFile
from mergepipe.formats.tokenizer_names import (
    ADDED,
    CONFIG,
    SENTENCEPIECE,
    SPECIAL,
    TOKENIZER,
    VOCAB_JSON,
    VOCAB_TEXT,
)
from mergepipe.vocabularies.sentencepiece import read_pieces
from mergepipe.vocabularies.tokenizer_files import (
    content_of,
    more_specials_of,
    named,
    parse,
    parse_object,
    roles_of,
    template_of,
)
from mergepipe.vocabularies.vocabulary import AddedToken, Vocabulary

# Ids are rows of a tensor: a hostile one must not make tables of that length.
MAX_ID = 1 << 24
_Id = Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]


class _Added(msgspec.Struct):
    id: _Id
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False

    def token(self) -> AddedToken:
        return AddedToken(
            content=self.content,
            single_word=self.single_word,
            lstrip=self.lstrip,
            rstrip=self.rstrip,
            normalized=self.normalized,
            special=self.special,
        )


class _Model(msgspec.Struct):
    """A dict in BPE, WordPiece and WordLevel; a list of (piece, score) in Unigram."""

    vocab: dict[str, _Id] | list[tuple[str, float]]


class _Tokenizer(msgspec.Struct):
    """What is read of tokenizer.json; the rest (merges: most of it) is skipped unbuilt."""

    model: _Model
    added_tokens: list[_Added] | None = None


def read_vocabulary(files: Mapping[str, bytes], label: str) -> Vocabulary | None:
    """The vocabulary of a checkpoint directory's files, given by path; None if there is none.

    Raises MalformedFile naming the file and `label`.
    """
    config = _optional(files, CONFIG, label)
    specials = _optional(files, SPECIAL, label)
    roles = roles_of(config, specials)
    if TOKENIZER in files:
        tokenizer = parse(files[TOKENIZER], _Tokenizer, named(label, TOKENIZER))
        ids = _model_ids(tokenizer.model)
        added = assign(ids, (entry.token() for entry in tokenizer.added_tokens or ()))
    else:
        found = _legacy_ids(files, label)
        if found is None:
            return None
        ids = found
        added = _legacy_added(files, label, ids, config)
    _add_late(ids, added, config)
    for token in (*roles.values(), *more_specials_of(config, specials)):
        _add_special(ids, added, token)
    if max(ids.values(), default=0) > MAX_ID:
        raise MalformedFile(f"the tokenizer of {label} has ids above {MAX_ID}")
    return Vocabulary(
        ids,
        dict(sorted(added.items(), key=lambda item: ids[item[0]])),
        roles,
        template_of(files, config, label),
    )


def assign(ids: dict[str, int], tokens: Iterable[AddedToken]) -> dict[str, AddedToken]:
    """Enter added tokens into `ids` as the `tokenizers` library does; returns them by content.

    The ids in a file do not count there: a token that the model has keeps the model's id, any other
    gets the model's *count* of tokens and of those added before it, gaps or not.
    """
    place = len(ids)
    added: dict[str, AddedToken] = {}
    for token in tokens:
        if not token.content:
            continue
        if token.content not in ids:
            ids[token.content] = place
            place += 1
        added[token.content] = token
    return added


def _model_ids(model: _Model) -> dict[str, int]:
    if isinstance(model.vocab, dict):
        return dict(model.vocab)
    return {piece: place for place, (piece, _) in enumerate(model.vocab)}


def _optional(files: Mapping[str, bytes], path: str, label: str) -> dict[str, object]:
    return parse_object(files[path], named(label, path)) if path in files else {}


def _legacy_ids(files: Mapping[str, bytes], label: str) -> dict[str, int] | None:
    if VOCAB_JSON in files:
        return parse(files[VOCAB_JSON], dict[str, _Id], named(label, VOCAB_JSON))
    if VOCAB_TEXT in files:
        try:
            lines = files[VOCAB_TEXT].decode().split("\n")
        except UnicodeDecodeError as error:
            raise MalformedFile(f"{named(label, VOCAB_TEXT)} is not UTF-8") from error
        if lines[-1] == "":
            lines.pop()
        return {line.rstrip("\r"): place for place, line in enumerate(lines)}
    for path in SENTENCEPIECE:
        if path in files:
            pieces = read_pieces(files[path], named(label, path))
            return {piece: place for place, piece in enumerate(pieces)}
    return None


def _legacy_added(
    files: Mapping[str, bytes], label: str, ids: dict[str, int], config: Mapping[str, object]
) -> dict[str, AddedToken]:
    """Added tokens with the ids that the files beside an older vocabulary give them."""
    added: dict[str, AddedToken] = {}
    for place, token in _decoder(config):
        ids.setdefault(token.content, place)
        added[token.content] = token
    if ADDED in files:
        entries = parse(files[ADDED], dict[str, _Id], named(label, ADDED))
        for content, place in sorted(entries.items(), key=lambda item: item[1]):
            ids.setdefault(content, place)
            added.setdefault(content, AddedToken(content))
    return added


def _decoder(config: Mapping[str, object]) -> list[tuple[int, AddedToken]]:
    """`added_tokens_decoder` of tokenizer_config.json, by id; what makes no sense is left out."""
    tokens: list[tuple[int, AddedToken]] = []
    entries = config.get("added_tokens_decoder")
    for key, value in entries.items() if isinstance(entries, Mapping) else ():
        content = content_of(value)
        if content is not None and key.isdecimal() and len(key) < 10 and int(key) <= MAX_ID:
            flags = value if isinstance(value, Mapping) else {}
            special = flags.get("special") is True
            token = AddedToken(
                content=content,
                single_word=flags.get("single_word") is True,
                lstrip=flags.get("lstrip") is True,
                rstrip=flags.get("rstrip") is True,
                normalized=flags.get("normalized", not special) is True,
                special=special,
            )
            tokens.append((int(key), token))
    return sorted(tokens, key=lambda item: item[0])


def _add_late(
    ids: dict[str, int], added: dict[str, AddedToken], config: Mapping[str, object]
) -> None:
    """Tokens that only the config's decoder names: after all others, whatever id it says."""
    for _, token in _decoder(config):
        if token.content not in added:
            ids.setdefault(token.content, _next(ids))
            added[token.content] = token


def _add_special(ids: dict[str, int], added: dict[str, AddedToken], token: str) -> None:
    """Tokens with a role are added tokens, and special, wherever else they stand."""
    ids.setdefault(token, _next(ids))
    before = added.get(token)
    if before is None:
        added[token] = AddedToken(token, normalized=False, special=True)
    elif not before.special:
        added[token] = AddedToken(
            content=token,
            single_word=before.single_word,
            lstrip=before.lstrip,
            rstrip=before.rstrip,
            normalized=before.normalized,
            special=True,
        )


def _next(ids: Mapping[str, int]) -> int:
    return max(ids.values(), default=-1) + 1
