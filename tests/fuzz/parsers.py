"""Every parser of what somebody else may have written."""

from . import files, lines, messages
from .parser import Parser

PARSERS: tuple[Parser, ...] = (*files.PARSERS, *lines.PARSERS, *messages.PARSERS)
