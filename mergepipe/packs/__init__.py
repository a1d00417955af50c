"""Packs of records, their LMDB index, and the block store over them."""
