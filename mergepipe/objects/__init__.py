"""Immutable records (tensor, snapshot, commit, ...) and their canonical encoding."""
