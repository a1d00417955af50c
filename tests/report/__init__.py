"""Tests of mergepipe.report."""
