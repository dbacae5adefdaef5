"""A YAML file read with the place of everything in it, so that each error says file:line:column.

    read / parse    text → Document: data, and where each key and value stands
    validate        Document (or a part of it) → pydantic model
    Invalid         all that is wrong, rendered with the source line, a caret and the mending

YAML 1.2 core types only: ``on``, ``no`` and ``22:22`` are text. Anchors, aliases, merge keys, tags, duplicate keys,
more than one document and anything beyond the bounds on size and depth are refused.
"""

from __future__ import annotations

from invalidator.yamlfile.diagnostic import Diagnostic, Invalid, Severity, shown, split_lines
from invalidator.yamlfile.document import MAX_BYTES, MAX_DEPTH, Document, Path, Span, parse, read, read_text
from invalidator.yamlfile.validation import validate

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "Diagnostic",
    "Document",
    "Invalid",
    "Path",
    "Severity",
    "Span",
    "parse",
    "read",
    "read_text",
    "shown",
    "split_lines",
    "validate",
]
