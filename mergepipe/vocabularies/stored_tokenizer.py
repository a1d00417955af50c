"""A stored model's tokenizer: its files' bytes, and what they say."""

from collections.abc import Mapping

from msgspec import Struct, field

from mergepipe.errors import MalformedFile
from mergepipe.formats.tokenizer_names import is_tokenizer_file
from mergepipe.objects.records import Blob, Snapshot
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.vocabularies.tokenizer_files import MAX_FILE_BYTES, named
from mergepipe.vocabularies.tokenizer_reading import read_vocabulary
from mergepipe.vocabularies.vocabulary import Vocabulary


class StoredTokenizer(Struct, frozen=True):
    """The tokenizer files of a snapshot by path, and their vocabulary (None: there are none)."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None

    @classmethod
    def of(cls, files: Mapping[str, bytes], label: str) -> "StoredTokenizer":
        """What tokenizer files say. Raises MalformedFile naming file and model."""
        return cls(files, read_vocabulary(files, label))


def read_tokenizer(
    snapshot: Snapshot, label: str, objects: ObjectStore, reader: BlockReader
) -> StoredTokenizer:
    """The tokenizer in the top folder of a snapshot. Raises MalformedFile naming file and model."""
    files: dict[str, bytes] = {}
    for file in snapshot.files:
        if isinstance(file.content, Blob) and is_tokenizer_file(file.path):
            if file.size > MAX_FILE_BYTES:
                raise MalformedFile(
                    f"{named(label, file.path)} has {file.size} bytes; {MAX_FILE_BYTES} are allowed"
                )
            blocks = objects.tensor(file.content.data).block_ids()
            files[file.path] = b"".join(reader.read(blocks))
    return StoredTokenizer.of(files, label)
