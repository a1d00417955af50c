"""Tokenizer files are somebody else's: whatever is in them, it is read or refused."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.errors import MalformedFile, MergeInputError
from mergepipe.formats.tokenizer_names import TOKENIZER_FILES
from mergepipe.vocabularies.tokenizer_reading import read_vocabulary
from mergepipe.vocabularies.tokenizer_writing import write_tokenizer
from mergepipe.vocabularies.union import combine
from tests.vocabularies import tiny

_KEYS = st.sampled_from(
    [
        *("model", "vocab", "merges", "added_tokens", "id", "content", "special", "bos_token", "a"),
        *("added_tokens_decoder", "chat_template", "additional_special_tokens", "0", "7", "<x>"),
    ]
)
_VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-2, 9), st.floats(), _KEYS, st.text(max_size=3)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_KEYS, inner, max_size=5)),
    max_leaves=12,
)
_VOCAB = st.one_of(
    st.dictionaries(st.one_of(_KEYS, st.text(max_size=3)), st.integers(0, 9), max_size=5),
    st.lists(st.tuples(_KEYS, st.floats(-9, 0)), max_size=5),
)
_ADDED = st.lists(st.fixed_dictionaries({"id": st.integers(0, 20), "content": _KEYS}), max_size=4)
_NEARLY = st.fixed_dictionaries(
    {"model": st.fixed_dictionaries({"vocab": _VOCAB, "merges": _VALUES}), "added_tokens": _ADDED}
)
_FILE = st.one_of(
    st.one_of(_NEARLY, _VALUES).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
)


_CONFIG = st.dictionaries(_KEYS, _VALUES, max_size=5).map(lambda value: json.dumps(value).encode())
_MODERN = st.fixed_dictionaries(
    {"tokenizer.json": _NEARLY.map(lambda value: json.dumps(value).encode())},
    optional={
        "tokenizer_config.json": _CONFIG,
        "special_tokens_map.json": _CONFIG,
        "chat_template.jinja": st.just(b"{{ x }}"),
    },
)
_ANY = st.dictionaries(st.sampled_from(sorted(TOKENIZER_FILES)), _FILE, min_size=1, max_size=4)


@settings(max_examples=400, deadline=None)
@given(st.one_of(_MODERN, _MODERN, _ANY), _NEARLY)
def test_any_files_are_read_or_refused(files, other):
    try:
        found = read_vocabulary(files, "m")
        if found is None:
            return
        more = tiny.vocabulary({"tokenizer.json": json.dumps(other).encode()}, "other")
        vocabulary = combine(found, [more]).vocabulary
        assert (
            found.ids.items() <= vocabulary.ids.items() and more.ids.keys() <= vocabulary.ids.keys()
        )
        written = write_tokenizer(files, vocabulary.below(vocabulary.end - 1), "m", "{{ x }}")
    except (MalformedFile, MergeInputError):
        return
    assert written["chat_template.jinja"] == b"{{ x }}"
    read_vocabulary(written, "out")
