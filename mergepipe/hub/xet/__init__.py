"""Uploads by xet, the way that newer clients of the hub send large files (docs/hub.md).

Who lives here: `lz4` and `hashes` (bytes and names of chunks), `xorbs` (many chunks in one body)
and `shards` (which chunks make which file), read as they come; `sessions` (xorbs that came and
are in no file yet) and `application` (each address).

Sources: the protocol as Hugging Face publishes it (https://huggingface.co/docs/xet), the LZ4
block and frame formats (https://github.com/lz4/lz4/tree/dev/doc).

What never happens here: nothing is deduplicated by what these bodies say, and nobody downloads by
xet. Files that came whole lie where all uploads lie (`hub.staging`), and commits take them there.
"""
