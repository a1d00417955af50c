"""Bytes that were read, by whose they are."""

from msgspec import Struct


class Readings(Struct, frozen=True):
    """Bytes read from the byte store so far, as stored: whole records, and objects and footers."""

    expert_bytes: int = 0
    base_bytes: int = 0
    metadata_bytes: int = 0
    reads: int = 0

    def __add__(self, other: "Readings") -> "Readings":
        return Readings(
            self.expert_bytes + other.expert_bytes,
            self.base_bytes + other.base_bytes,
            self.metadata_bytes + other.metadata_bytes,
            self.reads + other.reads,
        )

    def __sub__(self, other: "Readings") -> "Readings":
        return Readings(
            self.expert_bytes - other.expert_bytes,
            self.base_bytes - other.base_bytes,
            self.metadata_bytes - other.metadata_bytes,
            self.reads - other.reads,
        )


NOTHING_READ = Readings()
