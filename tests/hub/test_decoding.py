"""The cache of decoded blocks: each decoded once, by whoever asks first, within its memory."""

import threading
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mergepipe.api import Repository
from mergepipe.checkpoints.assembly import plan_file
from mergepipe.hub.decoding import DecodedBlocks
from mergepipe.hub.files import FileBytes

MIB = 1 << 20


def test_blocks_are_decoded_once_and_only_those_that_are_touched(tmp_path: Path) -> None:
    weights = np.random.default_rng(3).standard_normal((8, MIB // 4)).astype(np.float32)
    (tmp_path / "model").mkdir()
    save_file({"weights": weights}, tmp_path / "model" / "model.safetensors")
    content = (tmp_path / "model" / "model.safetensors").read_bytes()
    with Repository.init(tmp_path / "store", who="Ada") as repository:
        repository.commit(tmp_path / "model", branch="chat")
        entry = repository.contents.files("chat")[0]
        decoded = DecodedBlocks(4 * MIB)
        data = FileBytes(repository, plan_file(entry, repository.objects), decoded)

        assert bytes(data.read(3 * MIB, 3 * MIB + 10)) == content[3 * MIB : 3 * MIB + 10]
        assert decoded.decoded <= 2
        assert bytes(data.read(3 * MIB + 5, 3 * MIB + 9)) == content[3 * MIB + 5 : 3 * MIB + 9]
        assert decoded.decoded <= 2

        spans = list(data.spans(0, entry.size, lambda: 2 * MIB))
        assert b"".join(data.read(*span) for span in spans) == content
        assert [first for first, _ in spans[1:]] == [end for _, end in spans[:-1]]

        decoded = DecodedBlocks(64 * MIB)
        data = FileBytes(repository, plan_file(entry, repository.objects), decoded)
        readers = 8
        found: list[bytes] = []
        ready = threading.Barrier(readers)

        def read() -> None:
            ready.wait()
            found.append(b"".join(data.read(*span) for span in data.spans(0, entry.size)))

        threads = [threading.Thread(target=read) for _ in range(readers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [content] * readers
        assert decoded.decoded == len(data.plan.parts)
