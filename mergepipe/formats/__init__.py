"""What checkpoint files look like: safetensors, Hugging Face directories, adapters, trees of files.

Who lives here: `tree` and `ignore` (which files there are), `weight_files` and `beside_weights`
(which of them are the model); `safetensors` with `header_grammar` (strict reading, writing) and
`torch_pickle` (theirs, without running it); `writing` and `export_files` (files going out, whole or
not at all); `huggingface`, `shards`, `config_json`, `model_card`, `tokenizer_names`; `architecture`
and `weight_names` (which layer, which weight), `restacking` (a config whose layers moved, by
`layer_numbers` and `layer_rules`); `adapters`, `quantization`.

What comes in: files and their text, hostile until parsed. What goes out: frozen values, and new
headers and configurations.

What never happens here: nothing knows of blocks, snapshots or the store.
"""
