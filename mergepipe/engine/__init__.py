"""Streaming execution of a plan, and its publication."""
