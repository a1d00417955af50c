"""The files of a tokenizer that shall know other tokens than its own files say.

Everything but the vocabulary stays as it was: what the first tokenizer made of a text, the new one
makes of it, unless an added token is in it. Ordinary tokens of other models become part of the
tokenizer's model without merges, so that they have an id and decode, and cut no word apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mergepipe.errors import MalformedFile, MergeInputError
from mergepipe.formats.tokenizer_names import (
    CONFIG,
    LEGACY_FILES,
    PROCESSOR,
    TEMPLATE,
    TEMPLATE_JSON,
    TEMPLATES_BESIDE,
    TOKENIZER,
    is_tokenizer_file,
)
from mergepipe.names import quoted
from mergepipe.vocabularies.tokenizer_files import named, parse_object
from mergepipe.vocabularies.tokenizer_reading import assign, read_vocabulary
from mergepipe.vocabularies.vocabulary import AddedToken, Vocabulary

# Below every score a trained piece has, and low enough that no cut of a word is worth taking one.
_FAR_BELOW = 1e6


def write_tokenizer(
    files: Mapping[str, bytes], vocabulary: Vocabulary, label: str, template: str | None = None
) -> dict[str, bytes]:
    """The tokenizer files of an output, by path.

    files       of the model whose tokenizer it is, called `label`; others than a tokenizer's too
    vocabulary  what the output knows: the model's own tokens under their ids, and more
    template    the chat template; None keeps what the files have

    Files that stay right stay bit for bit; those of older libraries, which would not know the new
    tokens, are left out. Raises MergeInputError where there is no tokenizer.json to extend.
    """
    written = {path: content for path, content in files.items() if is_tokenizer_file(path)}
    own = read_vocabulary(files, label)
    if own is None or not _same(own, vocabulary):
        if TOKENIZER not in files:
            raise MergeInputError(
                f"{quoted(label)} has no {TOKENIZER}, so no other tokens can be put into its "
                "tokenizer",
                "load it once with transformers' AutoTokenizer, save it, and commit that",
            )
        written[TOKENIZER] = _extended(files[TOKENIZER], vocabulary, named(label, TOKENIZER))
        written = {path: content for path, content in written.items() if path not in LEGACY_FILES}
        if CONFIG in written:
            written[CONFIG] = _with_decoder(written[CONFIG], vocabulary, named(label, CONFIG))
    if template is not None:
        written = _with_template(written, template, label)
    return written


def without_template(content: bytes, label: str) -> bytes | None:
    """A processor's config without the template that would count before all; None: it has none."""
    config = parse_object(content, named(label, PROCESSOR))
    if config.get("chat_template") is None:
        return None
    return _dumped({key: value for key, value in config.items() if key != "chat_template"})


def _with_template(files: dict[str, bytes], template: str, label: str) -> dict[str, bytes]:
    """The same with one template: where processors and tokenizers look now, and did before.

    Templates of other names are left out: that for tools would count where tools are given.
    """
    config = parse_object(files.get(CONFIG, b"{}"), named(label, CONFIG))
    kept = {
        path: content
        for path, content in files.items()
        if path != TEMPLATE_JSON and not path.startswith(TEMPLATES_BESIDE)
    }
    kept[TEMPLATE] = template.encode()
    kept[CONFIG] = _dumped(config | {"chat_template": template})
    return kept


def _same(own: Vocabulary, other: Vocabulary) -> bool:
    return own.ids == other.ids and own.added == other.added


def _extended(content: bytes, vocabulary: Vocabulary, what: str) -> bytes:
    document = parse_object(content, what)
    model = document.get("model")
    if not isinstance(model, dict):
        raise MalformedFile(f"{what} has no model")
    before = model.get("vocab")
    added = {entry[0] for entry in before} if isinstance(before, list) else set(before or ())
    ordinary = [token for token in vocabulary.ids if token not in vocabulary.added]
    # Added tokens get the right ids by themselves if they simply follow; otherwise (ordinary tokens
    # between or after them, gaps) only a place in the model fixes them.
    kept = {token: vocabulary.ids[token] for token in added if token in vocabulary.ids}
    assign(kept, vocabulary.added.values())
    if added <= vocabulary.ids.keys() and kept == vocabulary.ids:
        pass
    elif isinstance(before, list):
        model["vocab"] = _pieces(before, vocabulary, what)
    else:
        order = sorted(vocabulary.ids, key=vocabulary.ids.__getitem__)
        model["vocab"] = {token: vocabulary.ids[token] for token in order}
        if not added <= vocabulary.ids.keys():
            _drop_merges(model, set(ordinary) | added & vocabulary.ids.keys(), what)
    document["added_tokens"] = [
        {"id": vocabulary.ids[token], **_flags(flags)} for token, flags in vocabulary.added.items()
    ]
    return _dumped(document)


def _pieces(before: list[Any], vocabulary: Vocabulary, what: str) -> list[Any]:
    """The pieces of a Unigram model: their places are their ids, so there can be no gaps."""
    scores: dict[str, float] = dict(before)
    lowest = min(scores.values(), default=0.0) - _FAR_BELOW
    order = sorted(vocabulary.ids, key=vocabulary.ids.__getitem__)
    if [vocabulary.ids[token] for token in order] != list(range(len(order))):
        raise MergeInputError(f"{what} is a Unigram model, and its ids have gaps")
    return [[token, scores.get(token, lowest)] for token in order]


def _drop_merges(model: dict[str, Any], known: set[str], what: str) -> None:
    """Leave out merges of tokens that the embeddings have no rows for."""
    merges = model.get("merges")
    if merges is None:
        return
    try:
        pairs = msgspec.convert(merges, list[str | tuple[str, str]])
    except msgspec.ValidationError as error:
        raise MalformedFile(f"{what}: its merges are no pairs of tokens: {error}") from error
    model["merges"] = [
        pair
        for pair in pairs
        if all(part in known for part in _parts(pair)) and "".join(_parts(pair)) in known
    ]


def _parts(merge: str | tuple[str, str]) -> Sequence[str]:
    """The tokens that a merge joins: older files write them as one text."""
    return merge.split(" ") if isinstance(merge, str) else merge


def _flags(token: AddedToken) -> dict[str, Any]:
    return {
        "content": token.content,
        "single_word": token.single_word,
        "lstrip": token.lstrip,
        "rstrip": token.rstrip,
        "normalized": token.normalized,
        "special": token.special,
    }


def _with_decoder(content: bytes, vocabulary: Vocabulary, what: str) -> bytes:
    """tokenizer_config.json with all added tokens, where it lists them."""
    config = parse_object(content, what)
    if "added_tokens_decoder" not in config:
        return content
    config["added_tokens_decoder"] = {
        str(vocabulary.ids[token]): _flags(flags) for token, flags in vocabulary.added.items()
    }
    return _dumped(config)


def _dumped(document: dict[str, Any]) -> bytes:
    """As the tokenizers library writes JSON: two spaces, members in their order."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
