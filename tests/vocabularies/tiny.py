"""Tiny tokenizers of every kind, made by the `tokenizers` library and saved by transformers."""

import json
from collections.abc import Mapping

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mergepipe.vocabularies.tokenizer_reading import read_vocabulary
from mergepipe.vocabularies.vocabulary import Vocabulary

SPECIALS = ("<unk>", "<s>", "</s>")
ROLES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def bpe(tokens, merges=(), **options):
    """Byte-level BPE with these ordinary tokens after the specials."""
    vocab = {token: place for place, token in enumerate((*SPECIALS, *tokens))}
    found = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m) for m in merges], **options))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    return found


def unigram(tokens):
    vocab = [(token, -float(place)) for place, token in enumerate((*SPECIALS, *tokens))]
    found = Tokenizer(models.Unigram(vocab, unk_id=0))
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    found.decoder = decoders.Metaspace()
    return found


def wordpiece(tokens):
    vocab = {token: place for place, token in enumerate((*SPECIALS, *tokens))}
    found = Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.decoder = decoders.WordPiece()
    return found


def save(directory, tokenizer, *, special=(), added=(), roles=ROLES, **more):
    """Save a tokenizer with added tokens as transformers does; returns its files' bytes."""
    tokenizer.add_special_tokens([_token(token, special=True) for token in (*SPECIALS, *special)])
    tokenizer.add_tokens([_token(token, special=False) for token in added])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles, **more)
    fast.save_pretrained(directory)
    # Without a model's config.json AutoTokenizer goes by this.
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config))
    return files_of(directory)


def _token(token, *, special):
    return token if isinstance(token, AddedToken) else AddedToken(token, special=special)


def files_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def write(directory, files):
    directory.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        (directory / path).write_bytes(content)
    return directory


def load(directory):
    """What transformers makes of a directory of tokenizer files."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


def vocabulary(files: Mapping[str, bytes], label: str) -> Vocabulary:
    """The vocabulary of files that surely hold one."""
    vocabulary = read_vocabulary(files, label)
    assert vocabulary is not None
    return vocabulary
