"""Which files of a checkpoint belong to its tokenizer: asked of every merge, whatever it does."""

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIAL = "special_tokens_map.json"
ADDED = "added_tokens.json"
VOCAB_JSON = "vocab.json"
VOCAB_TEXT = "vocab.txt"
TEMPLATE = "chat_template.jinja"
TEMPLATE_JSON = "chat_template.json"
# Templates for other purposes (tools), each in a file of its name.
TEMPLATES_BESIDE = "additional_chat_templates/"
PROCESSOR = "processor_config.json"
SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
# All of them belong together: a model takes them from one place, or has them made for it.
TOKENIZER_FILES = frozenset(
    (
        *(TOKENIZER, CONFIG, SPECIAL, ADDED, VOCAB_JSON, VOCAB_TEXT, TEMPLATE, TEMPLATE_JSON),
        *SENTENCEPIECE,
        *("merges.txt", "tekken.json", "vocab.bpe", "encoder.json", "qwen.tiktoken"),
    )
)
# What is written for older libraries and says the same as tokenizer.json; wrong once that changes.
LEGACY_FILES = TOKENIZER_FILES - {TOKENIZER, CONFIG, SPECIAL, TEMPLATE, TEMPLATE_JSON}


def is_tokenizer_file(path: str) -> bool:
    """Whether a file of a checkpoint directory belongs to its tokenizer."""
    return path in TOKENIZER_FILES or path.startswith(TEMPLATES_BESIDE)
