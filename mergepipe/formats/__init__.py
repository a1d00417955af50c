"""What checkpoint files look like: safetensors, Hugging Face directories, adapters, trees of files.

Who lives here: `safetensors` with `header_grammar` (strict reading, writing); `tree` and `ignore`
(which files there are), `writing` (files going out, whole or not at all); `huggingface`, `shards`,
`config_json`, `model_card`; `architecture` and `weight_names` (which layer, which weight);
`adapters`; `tokenizers/`.

What comes in: files and their text, hostile until parsed. What goes out: frozen values, and new
headers and configurations.

What never happens here: nothing knows of blocks, snapshots or the store.
"""
