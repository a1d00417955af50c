"""Vocabularies: which tokens a model knows, which rows they have, and how several become one.

Who lives here: `vocabulary` is what a tokenizer knows; `tokenizer_files`, `tokenizer_reading` (with
`sentencepiece`) and `tokenizer_writing` (with `templates`) turn its files into one and back;
`stored_tokenizer` is that of a snapshot. `union` brings several together, `planning` says which
tokens and rows an output has, `row_maps` where each row comes from; `gathering` and `embeddings`
make the tensors with these rows.

What comes in: tokenizer files, what a recipe says of them, stored embeddings. What goes out: the
output's tokenizer files, and stored tensors in its rows.

What never happens here: no recipe is read, and nothing is merged. This is the door: whoever is
outside takes what they need from here.
"""

from mergepipe.vocabularies.embeddings import LaidOut, lay_out
from mergepipe.vocabularies.planning import (
    From,
    ModelVocabulary,
    TokenOf,
    TokenRule,
    TokenSource,
    VocabularyPlan,
    VocabularyRequest,
    Zeros,
    adjusted_ids,
    plan_vocabulary,
)
from mergepipe.vocabularies.row_maps import ZERO, RowMap, row_map
from mergepipe.vocabularies.stored_tokenizer import StoredTokenizer, read_tokenizer
from mergepipe.vocabularies.tokenizer_files import MAX_FILE_BYTES
from mergepipe.vocabularies.tokenizer_writing import without_template
from mergepipe.vocabularies.vocabulary import Vocabulary

__all__ = [
    "MAX_FILE_BYTES",
    "ZERO",
    "From",
    "LaidOut",
    "ModelVocabulary",
    "RowMap",
    "StoredTokenizer",
    "TokenOf",
    "TokenRule",
    "TokenSource",
    "Vocabulary",
    "VocabularyPlan",
    "VocabularyRequest",
    "Zeros",
    "adjusted_ids",
    "lay_out",
    "plan_vocabulary",
    "read_tokenizer",
    "row_map",
    "without_template",
]
