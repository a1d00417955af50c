"""Tokenizer files: what tokens a model knows, and tokenizers that know more of them."""
