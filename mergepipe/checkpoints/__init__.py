"""Ingest and export: a directory of files to a snapshot in the store, and back."""
