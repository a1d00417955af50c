"""A byte store offered to other machines: over http, and over a pipe to one client."""
