"""Which rows the output has and where they come from: facts taken from runs of mergekit 0.1.5."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.errors import MergeInputError
from mergepipe.vocabularies.planning import (
    From,
    ModelVocabulary,
    TokenOf,
    TokenRule,
    VocabularyPlan,
    VocabularyRequest,
    Zeros,
    adjusted_ids,
    plan_vocabulary,
)
from mergepipe.vocabularies.row_maps import MEAN, ZERO
from mergepipe.vocabularies.vocabulary import AddedToken, Vocabulary

SPECIALS = ["<unk>", "<s>", "</s>"]


def model(label, tokens, added=(), rows=None, **more):
    """A model whose tokenizer is one tokenizer.json."""
    import msgspec

    ids = {token: place for place, token in enumerate([*SPECIALS, *tokens, *added])}
    flags = {t: AddedToken(t, special=t in SPECIALS) for t in (*SPECIALS, *added)}
    document = {
        "added_tokens": [
            {"id": ids[t], "content": t, "special": f.special} for t, f in flags.items()
        ],
        "model": {
            "type": "BPE",
            "vocab": {t: ids[t] for t in ids if t not in added},
            "merges": [],
        },
    }
    vocabulary = Vocabulary(ids, flags)
    files = {"tokenizer.json": msgspec.json.encode(document)}
    return ModelVocabulary(label, vocabulary, rows or len(ids), files, **more)


A = model("A", ["a", "b", "c", "d", "ab", "cd"], rows=12)
B = model("B", ["a", "b", "c", "d", "cd", "e", "de"], ["<|im_start|>", "plain"])
C = model("C", ["a", "d", "c", "b", "zz"], ["<|im_start|>"])


def resolved(plan, number, size=1000):
    """A model's rows as tests of mergekit show them: model * 1000 + row, means as numbers."""
    map_ = plan.maps[number]
    found = []
    for which, row in zip(map_.models, map_.rows, strict=True):
        if which == ZERO:
            found.append(0)
        elif which == MEAN:
            values = [(m + 1) * size + r for m, r in map_.means[row]]
            found.append(sum(values) / len(values))
        else:
            found.append((which + 1) * size + row)
    return found


def known(plan: VocabularyPlan) -> Vocabulary:
    assert plan.vocabulary is not None
    return plan.vocabulary


def test_union_of_two():
    plan = plan_vocabulary(VocabularyRequest(From.UNION), [A, B], None)
    assert list(known(plan).ids) == [*A.vocabulary.ids, "e", "de", "<|im_start|>", "plain"]
    assert plan.rows == 13
    assert resolved(plan, 0) == [*range(1000, 1009), *range(2008, 2012)]
    assert resolved(plan, 1) == [*range(2000, 2007), 1007, *range(2007, 2012)]


def test_union_of_three_takes_the_base_first_and_means_where_it_lacks_a_token():
    plan = plan_vocabulary(VocabularyRequest(From.UNION), [A, B, C], 0)
    by_token = dict(zip(known(plan).ids, resolved(plan, 2), strict=True))
    assert by_token["cd"] == 1008 and by_token["ab"] == 1007 and by_token["e"] == 2008
    assert by_token["d"] == 3004 and by_token["zz"] == 3007
    by_token = dict(zip(known(plan).ids, resolved(plan, 0), strict=True))
    assert by_token["<|im_start|>"] == (2010 + 3008) / 2
    # Without a base there is none to take first: the mean of all that have the token.
    plan = plan_vocabulary(VocabularyRequest(From.UNION), [A, B, C], None)
    assert dict(zip(known(plan).ids, resolved(plan, 2), strict=True))["cd"] == 1507.5


def test_ordinary_tokens_come_before_added_ones():
    plan = plan_vocabulary(VocabularyRequest(From.UNION), [A, B, C], 0)
    assert list(known(plan).ids)[9:] == ["e", "de", "zz", "<|im_start|>", "plain"]


def test_base_and_another_models_vocabulary():
    plan = plan_vocabulary(VocabularyRequest(From.BASE), [A, B], 0)
    assert plan.rows == 9 and resolved(plan, 1) == [*range(2000, 2007), 1007, 2007]
    assert resolved(plan, 0) == list(range(1000, 1009)), "rows past the tokenizer's are dropped"
    assert plan.files == A.files
    plan = plan_vocabulary(VocabularyRequest(1), [A, B], 0)
    assert resolved(plan, 0) == [*range(1000, 1007), 1008, *range(2008, 2012)]
    assert plan.maps[1] is None, "it has these rows already"
    assert plan.files == B.files and plan.origin == 1


def test_rules_for_tokens():
    rules = {
        "ab": TokenRule(TokenOf(0)),
        "e": TokenRule(Zeros()),
        "de": TokenRule(TokenOf(0, "ab")),
        "plain": TokenRule(TokenOf(1, row=3), force=True),
        "a": TokenRule(TokenOf(1), force=True),
        "<new>": TokenRule(TokenOf(0, "c")),
    }
    plan = plan_vocabulary(VocabularyRequest(From.UNION, rules), [A, B], 0)
    head = [1000, 1001, 1002, 2003, 1004, 1005, 1006, 1007, 1008]
    assert resolved(plan, 0) == [*head, 0, 1007, 2010, 2003, 1005]
    head = [2000, 2001, 2002, 2003, 2004, 2005, 2006, 1007, 2007]
    assert resolved(plan, 1) == [*head, 2008, 2009, 2010, 2003, 1005]
    assert known(plan).ids["<new>"] == 13 and "<new>" in known(plan).added


def test_a_rule_can_make_a_token_zero_for_all():
    rules = {"a": TokenRule(Zeros(), force=True)}
    plan = plan_vocabulary(VocabularyRequest(From.BASE, rules), [A, B], 0)
    assert resolved(plan, 0)[3] == resolved(plan, 1)[3] == 0


def test_padding():
    request = VocabularyRequest(From.UNION, multiple=8)
    plan = plan_vocabulary(request, [A, B], None)
    assert plan.rows == 16
    first = plan.maps[0]
    assert first is not None and first.padding == 3 and first.count == 16
    assert plan_vocabulary(VocabularyRequest(multiple=8), [A, B], None).rows == 16


def test_tokens_without_a_row_are_left_out():
    short = model("short", ["a", "b"], ["p", "q"], rows=6)
    plan = plan_vocabulary(VocabularyRequest(From.UNION), [A, short], 0)
    assert "q" not in known(plan).ids and known(plan).ids["p"] == 9
    plan = plan_vocabulary(VocabularyRequest(From.BASE), [short, A], 0)
    assert list(known(plan).ids) == [*SPECIALS, "a", "b", "p"] and plan.rows == 6
    assert plan.files is not None
    assert b'"q"' not in plan.files["tokenizer.json"]


def test_nothing_said():
    same = model("D", ["b", "a", "c", "d", "ab", "cd"], rows=12)
    plan = plan_vocabulary(VocabularyRequest(), [A, same], 0)
    assert not plan.lays_out and plan.files is None and plan.rows == 12
    assert "disagree on 2 of 9 tokens" in plan.notes[0]
    with pytest.raises(MergeInputError, match=r"'A' have 12 rows, those of 'C' 9"):
        plan_vocabulary(VocabularyRequest(), [A, C], 0)


def test_conflicts_are_told():
    ours = model("ours", ["a"], ["<x>"])
    flags = dict(ours.vocabulary.added) | {"<x>": AddedToken("<x>", lstrip=True)}
    theirs = ModelVocabulary("theirs", Vocabulary(ours.vocabulary.ids, flags), 5)
    plan = plan_vocabulary(VocabularyRequest(From.UNION), [ours, theirs], 0)
    assert plan.notes == ("Models add token '<x>' with different settings; the first one's count.",)
    assert not plan.lays_out


def test_a_tokenizer_of_a_model_that_is_not_merged():
    lender = model("lender", ["q", "a"], merged=False)
    plan = plan_vocabulary(VocabularyRequest(1), [A, lender], 0)
    assert resolved(plan, 0) == [1000, 1001, 1002, 0, 1003]
    assert plan.notes == ("No model has token 'q'; their rows are zero.",)


@pytest.mark.parametrize(
    ("request_", "models", "words"),
    [
        (VocabularyRequest(From.BASE, {"x": TokenRule(TokenOf(1))}), [A, B], "no token 'x'"),
        (VocabularyRequest(From.BASE, {"x": TokenRule(TokenOf(1, "no"))}), [A, B], "no token 'no'"),
        (VocabularyRequest(From.BASE, {"x": TokenRule(TokenOf(1, row=12))}), [A, B], "row 12"),
        (VocabularyRequest(From.BASE, {"x": TokenRule(TokenOf(1, row=-1))}), [A, B], "row -1"),
        (VocabularyRequest(From.BASE, multiple=0), [A, B], "pad_to_multiple_of"),
        (VocabularyRequest(template="nope"), [A, B], "no chat template is called 'nope'"),
        (VocabularyRequest(7), [A, B], "not there"),
        (VocabularyRequest(From.UNION), [A, ModelVocabulary("N", None, 9)], "'N' has no tokenizer"),
    ],
)
def test_what_cannot_be_is_said_at_once(request_, models, words):
    with pytest.raises(MergeInputError, match=words):
        plan_vocabulary(request_, models, 0)


def test_ids_that_move():
    plan = plan_vocabulary(VocabularyRequest(1), [A, model("M", [], ["ab", "a"])], 0)
    config = {
        "vocab_size": 12,
        "bos_token_id": 1,
        "eos_token_id": [2, 7],
        "pad_token_id": 4,
        "decoder_start_token_id": None,
        "mask_token_id": 11,
        "hidden_size": 2,
    }
    assert adjusted_ids(config, plan, A.vocabulary) == {
        "vocab_size": 5,
        "eos_token_id": [2, 3],
        "pad_token_id": None,
    }


_TOKENS = st.lists(st.sampled_from([f"t{n}" for n in range(12)]), unique=True, max_size=10)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(_TOKENS, _TOKENS, st.integers(0, 3)), min_size=1, max_size=4),
    st.sampled_from([None, 0]),
    st.integers(1, 9),
    st.data(),
)
def test_every_model_keeps_its_own_rows(inputs, base, multiple, data):
    models = [
        model(f"m{n}", tokens, [t for t in added if t not in tokens])
        for n, (tokens, added, _) in enumerate(inputs)
    ]
    models = [
        ModelVocabulary(m.label, m.vocabulary, m.rows + extra, m.files)
        for m, (_, _, extra) in zip(models, inputs, strict=True)
    ]
    source = data.draw(st.sampled_from([From.UNION, From.BASE, *range(len(models))]))
    plan = plan_vocabulary(VocabularyRequest(source, multiple=multiple), models, base)
    ids = known(plan).ids
    assert sorted(ids.values()) == list(range(len(ids)))
    assert plan.rows is not None
    assert plan.rows % multiple == 0 and 0 <= plan.rows - len(ids) < multiple
    assert plan.origin is not None
    origin = models[plan.origin].vocabulary.ids
    assert all(ids[token] == place for token, place in origin.items())
    for number, (each, map_) in enumerate(zip(models, plan.maps, strict=True)):
        own = each.vocabulary.ids
        if source is From.UNION:
            assert own.keys() <= ids.keys()
        if map_ is None:
            assert plan.rows == each.rows and own == ids
            continue
        assert map_.count == plan.rows
        for token, place in ids.items():
            where = map_.models[place], map_.rows[place]
            if token in own:
                assert where == (number, own[token])
            elif base is not None and token in models[base].vocabulary.ids:
                assert where == (base, models[base].vocabulary.ids[token])
            else:
                having = [
                    (n, m.vocabulary.ids[token])
                    for n, m in enumerate(models)
                    if token in m.vocabulary.ids
                ]
                if len(having) > 1:
                    assert where[0] == MEAN and list(map_.means[where[1]]) == having
                else:
                    assert [where] == having
