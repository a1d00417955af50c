import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from mergepipe.errors import MalformedFile
from mergepipe.vocabularies.tokenizer_reading import assign, read_vocabulary
from mergepipe.vocabularies.vocabulary import AddedToken
from tests.vocabularies import tiny


@pytest.mark.parametrize("kind", [tiny.bpe, tiny.unigram, tiny.wordpiece])
def test_reads_what_transformers_loads(tmp_path, kind):
    files = tiny.save(tmp_path, kind(["a", "b", "c"]), special=["<|im_start|>"], added=["plain"])
    found = tiny.vocabulary(files, "m")
    assert found.ids == tiny.load(tmp_path).get_vocab()
    assert list(found.added) == [*tiny.SPECIALS, "<|im_start|>", "plain"]
    assert found.added["<|im_start|>"].special and not found.added["plain"].special
    assert found.roles == tiny.ROLES


def test_tokens_that_only_the_config_names_come_last(tmp_path):
    files = tiny.save(tmp_path, tiny.bpe(["a", "b"]))
    config = json.loads(files["tokenizer_config.json"])
    config["added_tokens_decoder"] = {"40": {"content": "<late>"}, "x": {"content": "<no>"}}
    config["pad_token"] = "[PAD]"
    config["sep_token"] = {"__type": "AddedToken", "content": "a"}
    files["tokenizer_config.json"] = json.dumps(config).encode()
    found = tiny.vocabulary(files, "m")
    del config["added_tokens_decoder"]["x"]  # transformers would trip over it
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert found.ids == tiny.load(tmp_path).get_vocab()
    assert found.ids["<late>"] == 5 and found.ids["[PAD]"] == 6
    assert found.added["a"].special and found.ids["a"] == 3


_NAMES = st.sampled_from(["a", "b", "ab", "x", "<y>", "é", "zz"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_NAMES, unique=True, max_size=5),
    st.lists(st.tuples(_NAMES, st.integers(0, 30), st.booleans()), max_size=6),
    st.integers(0, 4),
)
def test_ids_of_added_tokens_are_the_librarys(tokens, added, gap):
    """Whatever ids a file claims: the library goes by the model, or counts on."""
    document = json.loads(tiny.bpe([]).to_str())
    document["model"]["vocab"] = {t: n + gap * (n > 1) for n, t in enumerate(tokens)}
    document["added_tokens"] = [
        {
            "id": place,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": special,
        }
        for token, place, special in added
    ]
    text = json.dumps(document)
    expected = Tokenizer.from_str(text).get_vocab(with_added_tokens=True)
    assert tiny.vocabulary({"tokenizer.json": text.encode()}, "m").ids == expected


def test_assign_keeps_flags_of_the_last():
    ids = {"a": 0}
    added = assign(ids, [AddedToken("b"), AddedToken(""), AddedToken("b", lstrip=True)])
    assert ids == {"a": 0, "b": 1} and added == {"b": AddedToken("b", lstrip=True)}


def test_older_files():
    vocab = json.dumps({"a": 0, "b": 1}).encode()
    files = {
        "vocab.json": vocab,
        "merges.txt": b"#version: 0.2\n",
        "added_tokens.json": b'{"<y>": 3, "<x>": 2}',
        "special_tokens_map.json": b'{"eos_token": {"content": "<x>"}}',
    }
    found = tiny.vocabulary(files, "m")
    assert found.ids == {"a": 0, "b": 1, "<x>": 2, "<y>": 3}
    assert list(found.added) == ["<x>", "<y>"] and found.added["<x>"].special
    found = tiny.vocabulary({"vocab.txt": b"[PAD]\nthe\n##re\n"}, "m")
    assert found.ids == {"[PAD]": 0, "the": 1, "##re": 2}
    assert read_vocabulary({"config.json": b"{}"}, "m") is None


def test_a_lone_sentencepiece_model():
    pieces = ["<unk>", "▁a", "b" * 200]
    content = b"".join(
        _field(1, _field(1, p.encode()) + b"\x15\0\0\x80\xbf\x18\x02") for p in pieces
    )
    content += _field(2, b"trainer") + b"\x18\x05"
    found = tiny.vocabulary({"tokenizer.model": content}, "m")
    assert found.ids == {piece: place for place, piece in enumerate(pieces)}
    for broken in (content[:-30], b"\x0b", b"", b"\xff" * 30, b"hello"):
        with pytest.raises(MalformedFile, match=r"tokenizer\.model"):
            tiny.vocabulary({"tokenizer.model": broken}, "m")


def _field(number, content):
    length = len(content)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + size + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"model": {}}',
        b'{"model": {"vocab": {"a": -1}}}',
        b'{"model": {"vocab": {"a": 99999999999}}}',
        b'{"model": {"vocab": {"a": true}}}',
        b'{"model": {"vocab": [["a"]]}}',
        b'{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1}]}',
        b'{"model": ' + b"[" * 100_000,
        b'{"model": {"vocab": {"\xff": 0}}}',
    ],
)
def test_hostile_files_are_refused(content):
    with pytest.raises(MalformedFile, match=r"'tokenizer\.json' of 'm'"):
        tiny.vocabulary({"tokenizer.json": content}, "m")


def test_templates(tmp_path):
    files = tiny.save(tmp_path, tiny.bpe(["a"]))
    config = json.loads(files["tokenizer_config.json"])
    several = [{"name": "tool", "template": "T"}, {"name": "default", "template": "D"}]
    for template, expected in (("X", "X"), (several, "D"), (None, None), (7, None)):
        files["tokenizer_config.json"] = json.dumps(config | {"chat_template": template}).encode()
        assert tiny.vocabulary(files, "m").chat_template == expected
    files["chat_template.jinja"] = b"J"
    assert tiny.vocabulary(files, "m").chat_template == "J"
