"""Profiles: statistics of one snapshot against its base, per tensor and block."""
