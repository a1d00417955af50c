"""Remotes: negotiation, push, fetch, clone, serve."""
