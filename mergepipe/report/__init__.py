"""Figures and tables of what a merge did."""
