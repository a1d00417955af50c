"""Codecs: block bytes to encoded payloads and back. `registry` finds one by name or tag."""
