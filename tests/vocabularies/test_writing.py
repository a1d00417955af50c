"""Tokenizers made for an output, as transformers loads them."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from mergepipe.errors import MergeInputError
from mergepipe.vocabularies.templates import TEMPLATES, chat_template
from mergepipe.vocabularies.tokenizer_writing import write_tokenizer
from mergepipe.vocabularies.union import combine
from tests.vocabularies import tiny

LETTERS = ["Ġ", "a", "b", "c", "d", "e"]
MERGES = [("a", "b"), ("c", "d"), ("Ġ", "ab")]
TEXT = "ab cab dab ab cde bad"


def union(first, *others, tokens=()):
    """The combined vocabulary of these files, and the tokenizer files of the output."""
    known = [tiny.vocabulary(files, str(n)) for n, files in enumerate((first, *others))]
    vocabulary = combine(known[0], known[1:], tokens).vocabulary
    return vocabulary, write_tokenizer(first, vocabulary, "0")


@pytest.fixture
def models(tmp_path):
    base = tiny.bpe([*LETTERS, "ab", "cd", "Ġab"], MERGES)
    other = tiny.bpe([*LETTERS, "cd", "de", "bad"], [("c", "d"), ("d", "e")])
    start = AddedToken("<|im_start|>", special=True)
    return (
        tiny.save(tmp_path / "base", base, added=["<plain>"]),
        tiny.save(tmp_path / "other", other, special=[start], added=["<plain>", "<think>"]),
    )


def test_a_union_loads_and_encodes_as_before(tmp_path, models):
    vocabulary, files = union(*models, tokens=["<new>"])
    ours = tiny.load(tiny.write(tmp_path / "out", files))
    base = tiny.load(tmp_path / "base")
    assert ours.get_vocab() == vocabulary.ids and len(ours) == len(vocabulary.ids)
    assert ours(TEXT).input_ids == base(TEXT).input_ids
    for token in ("<|im_start|>", "<think>", "<new>", "<plain>"):
        assert ours(f"ab{token} cab").input_ids == [
            *base("ab").input_ids,
            vocabulary.ids[token],
            *base(" cab").input_ids,
        ]
    ids = ours("<|im_start|>ab<think>").input_ids
    assert ours.decode(ids) == "<|im_start|>ab<think>"
    assert ours.decode(ids, skip_special_tokens=True) == "ab<think>"
    assert ours.decode([vocabulary.ids["bad"]]) == "bad"
    assert (ours.bos_token_id, ours.eos_token_id) == (1, 2)


def test_the_result_reads_as_what_was_meant(models):
    vocabulary, files = union(*models)
    assert tiny.vocabulary(files, "out").ids == vocabulary.ids
    assert tiny.vocabulary(files, "out").added == vocabulary.added
    again, same = union(files, models[1])
    assert again == vocabulary and same == files, "a second union adds nothing"


def test_a_tokenizer_that_nothing_is_added_to_stays_bit_for_bit(models):
    base = models[0] | {"tokenizer.model": b"x", "config.json": b"{}"}
    _, files = union(base, base)
    assert files == {path: content for path, content in base.items() if path != "config.json"}


def test_files_of_older_libraries_are_left_out_once_they_are_wrong(models):
    older = {"tokenizer.model": b"", "vocab.json": b"{}", "merges.txt": b"", "vocab.txt": b""}
    _, files = union(models[0] | older, models[1])
    assert not older.keys() & files.keys()


def test_without_a_tokenizer_json_nothing_can_be_added(models):
    older = {"vocab.json": json.dumps({"a": 0}).encode(), "merges.txt": b""}
    with pytest.raises(MergeInputError, match=r"'0' has no tokenizer\.json"):
        union(older, models[0])
    assert union(older)[1] == older


def test_the_decoder_of_the_config_lists_all(tmp_path, models):
    base = dict(models[0])
    config = json.loads(base["tokenizer_config.json"])
    config["added_tokens_decoder"] = {"0": {"content": "<unk>", "special": True}}
    base["tokenizer_config.json"] = json.dumps(config).encode()
    vocabulary, files = union(base, models[1])
    decoder = json.loads(files["tokenizer_config.json"])["added_tokens_decoder"]
    assert {entry["content"]: int(place) for place, entry in decoder.items()} == {
        token: vocabulary.ids[token] for token in vocabulary.added
    }
    assert tiny.load(tiny.write(tmp_path / "out", files)).get_vocab() == vocabulary.ids


def test_word_pieces(tmp_path):
    base = tiny.save(tmp_path / "base", tiny.wordpiece(["a", "b", "##c"]))
    other = tiny.save(tmp_path / "other", tiny.wordpiece(["a", "##c", "##d"]), added=["<z>"])
    vocabulary, files = union(base, other)
    ours = tiny.load(tiny.write(tmp_path / "out", files))
    assert ours.get_vocab() == vocabulary.ids
    assert ours.tokenize("acd<z>b") == ["a", "##c", "##d", "<z>", "b"]


def test_unigram_pieces_are_taken_only_where_there_was_none(tmp_path):
    base = tiny.save(tmp_path / "base", tiny.unigram(["▁", "▁a", "b", "c", "d"]), added=["<p>"])
    other = tiny.save(tmp_path / "other", tiny.unigram(["▁a", "bcd", "x"]), added=["<z>"])
    vocabulary, files = union(base, other)
    ours = tiny.load(tiny.write(tmp_path / "out", files))
    assert ours.get_vocab() == vocabulary.ids
    before = tiny.load(tmp_path / "base")
    assert ours("abcd<p> a").input_ids == before("abcd<p> a").input_ids
    assert ours.tokenize("abx<z>") == ["▁a", "b", "x", "<z>"]
    assert before("abx").input_ids[-1] == 0


def test_tokens_beyond_the_embeddings_take_their_merges_with_them(tmp_path):
    base = tiny.save(tmp_path / "base", tiny.bpe([*LETTERS, "ab", "cd"], MERGES[:2]))
    vocabulary = tiny.vocabulary(base, "0").below(10)
    files = write_tokenizer(base, vocabulary, "0")
    ours = tiny.load(tiny.write(tmp_path / "out", files))
    assert ours.get_vocab() == vocabulary.ids
    assert ours.tokenize("abcd") == ["ab", "c", "d"]


_PIECE = st.text("abcde", min_size=1, max_size=3)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.lists(_PIECE, max_size=6), st.lists(_PIECE.map("<{}>".format), max_size=4)),
        min_size=1,
        max_size=3,
    ),
    st.text("abcde <>", max_size=30),
)
def test_any_union_is_what_transformers_loads(tmp_path_factory, inputs, text):
    root = tmp_path_factory.mktemp("union")
    every = [
        tiny.save(root / str(n), tiny.bpe(list(dict.fromkeys([*LETTERS, *tokens]))), added=added)
        for n, (tokens, added) in enumerate(inputs)
    ]
    vocabulary, files = union(*every)
    ours = tiny.load(tiny.write(root / "out", files))
    assert ours.get_vocab() == vocabulary.ids
    plain = text.replace("<", "").replace(">", "")
    assert ours(plain).input_ids == tiny.load(root / "0")(plain).input_ids
    for token, place in vocabulary.ids.items():
        if token in vocabulary.added:
            assert ours(token).input_ids == [place]


CHAT = [
    {"role": "system", "content": "SYS"},
    {"role": "user", "content": " hi "},
    {"role": "assistant", "content": "yo"},
    {"role": "user", "content": "x"},
]
# As the models' own documentation writes such a conversation; chatml and mistral also as
# mergekit 0.1.5 does.
RENDERED = {
    "chatml": "<|im_start|>system\nSYS<|im_end|>\n<|im_start|>user\n hi <|im_end|>\n"
    "<|im_start|>assistant\nyo<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n",
    "mistral": "<s> [INST] SYS\n\n hi  [/INST] yo</s> [INST] x [/INST]",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nSYS<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nyo<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nx<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "alpaca": "SYS\n\n### Instruction:\nhi\n\n### Response:\nyo\n\n### Instruction:\nx\n\n"
    "### Response:\n",
    "exaone": "[|system|]SYS[|endofturn|]\n[|user|] hi \n[|assistant|]yo[|endofturn|]\n"
    "[|user|]x\n[|assistant|]",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_that_have_a_name(tmp_path, models, name):
    base = models[0] | {
        "chat_template.jinja": b"old",
        "chat_template.json": b'{"chat_template": "old"}',
        "additional_chat_templates/tool_use.jinja": b"old",
    }
    config = json.loads(base["tokenizer_config.json"])
    several = [{"name": "default", "template": "old"}, {"name": "tool_use", "template": "old"}]
    base["tokenizer_config.json"] = json.dumps(config | {"chat_template": several}).encode()
    vocabulary = tiny.vocabulary(base, "0")
    files = write_tokenizer(base, vocabulary, "0", chat_template(name, []))
    assert files["tokenizer.json"] == base["tokenizer.json"]
    assert not any("json" in path and b"old" in content for path, content in files.items())
    ours = tiny.load(tiny.write(tmp_path / "out", files))
    shown = ours.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert shown == RENDERED[name]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert ours.get_chat_template(tools=tools) == TEMPLATES[name]
    # Before transformers 4.47 there was no file of its own.
    (tmp_path / "out" / "chat_template.jinja").unlink()
    assert tiny.load(tmp_path / "out").chat_template == TEMPLATES[name]


def test_choosing_a_template():
    assert chat_template(None, ["x"]) is None and chat_template("", ["x"]) is None
    assert chat_template("auto", ["b", None, "a", "a"]) == "a"
    assert chat_template("auto", ["b", "a"]) == "b" and chat_template("auto", [None]) is None
    for text in ("{{ messages }}", "{% if true %}x{% endif %}"):
        assert chat_template(text, []) == text
