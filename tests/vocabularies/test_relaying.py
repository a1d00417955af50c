"""Whole models brought into one vocabulary, with facts taken from runs of mergekit 0.1.5."""

import numpy as np

from mergepipe.checkpoints.embeddings import Storing
from mergepipe.checkpoints.relaying import Relaid, TokenTensors, relay
from mergepipe.packs.transaction import Transaction
from mergepipe.planner.vocabulary import From, VocabularyRequest, plan_vocabulary
from vocabularies.shelf import shelf
from vocabularies.test_planning import model

EMBED, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
OTHER = "model.layers.0.mlp.up_proj.weight"


def put(store, number, rows, *, head):
    """A model whose row r of the embeddings holds 1000 * number + r, of the head 500 more."""

    def filled(first):
        return np.repeat(np.arange(first, first + rows, dtype=float)[:, None], 4, axis=1)

    tensors = {
        EMBED: store.put(filled(1000 * number), "F32"),
        OTHER: store.put(np.ones((rows, 4)), "F32"),
        NORM: store.put(np.ones(4), "F32"),
    }
    if head:
        tensors[HEAD] = store.put(filled(1000 * number + 500), "F32")
    return TokenTensors(tensors, rows, None if head else EMBED)


def relaid(store, plan, models, base):
    with Transaction(store.storage) as sink:
        found = relay(
            models,
            plan.maps,
            base,
            objects=store.objects,
            reader=store.blocks,
            sink=sink,
            storing=Storing(),
        )
        sink.publish()
    return found


def column(store, identity):
    tensor, raw = store.get(identity)
    return np.frombuffer(raw, "<f4").reshape(tensor.shape)[:, 0].tolist()


def test_a_model_with_tied_embeddings_gets_a_head_where_another_has_one(tmp_path):
    a, b = model("a", ["a", "b", "c"]), model("b", ["a", "c", "e"])
    plan = plan_vocabulary(VocabularyRequest(From.UNION), [a, b], 0)
    with shelf(tmp_path / "store") as store:
        models = [put(store, 1, 6, head=False), put(store, 2, 6, head=True)]
        found = relaid(store, plan, models, 0)
        shared = [1000, 1001, 1002, 1003, 1004, 1005]
        assert column(store, found.tensors[0][EMBED]) == [*shared, 2005]
        assert column(store, found.tensors[0][HEAD]) == [*shared, 2505]
        assert column(store, found.tensors[1][EMBED]) == [2000, 2001, 2002, 2003, 1004, 2004, 2005]
        assert column(store, found.tensors[1][HEAD]) == [2500, 2501, 2502, 2503, 1004, 2504, 2505]
        assert all(own.keys() == {EMBED, HEAD} for own in found.tensors)


def test_tied_everywhere_stays_tied(tmp_path):
    a, b = model("a", ["a", "b", "c"]), model("b", ["a", "c", "e"])
    plan = plan_vocabulary(VocabularyRequest(From.BASE), [a, b], 0)
    with shelf(tmp_path / "store") as store:
        found = relaid(store, plan, [put(store, n, 6, head=False) for n in (1, 2)], 0)
        assert found.tensors[0] == {}, "the base has these rows already"
        assert found.tensors[1].keys() == {EMBED}
        assert column(store, found.tensors[1][EMBED]) == [2000, 2001, 2002, 2003, 1004, 2004]


def test_padding_is_the_mean_of_each_models_rows(tmp_path):
    a, b = model("a", ["a", "b", "c"], rows=9), model("b", ["a", "c", "e"])
    plan = plan_vocabulary(VocabularyRequest(From.BASE, multiple=4), [a, b], 0)
    with shelf(tmp_path / "store") as store:
        models = [put(store, 1, 9, head=False), put(store, 2, 6, head=False)]
        found = relaid(store, plan, models, 0)
        rows = column(store, found.tensors[1][EMBED])
        assert rows[:6] == [2000, 2001, 2002, 2003, 1004, 2004]
        assert rows[6:] == [np.float32(sum(rows[:6]) / 6)] * 2
        assert column(store, found.tensors[0][EMBED])[6:] == [1002.5] * 2


def test_nothing_is_read_where_nothing_changes(tmp_path):
    a = model("a", ["a", "b", "c"])
    plan = plan_vocabulary(VocabularyRequest(From.UNION), [a, a], 0)
    with shelf(tmp_path / "store") as store:
        models = [put(store, n, 6, head=True) for n in (1, 2)]
        assert relaid(store, plan, models, 0) == Relaid(({}, {}), 0, 0)
