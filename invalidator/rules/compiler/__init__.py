"""Rules become code: for each relation one Python function, generated for the columns that it has.

relation   the function: reads a row, counts it, lets each rule render, and does again what failed
rendering  the lines of one rule for one form of message
asking     the lines that note what a lookup is to be asked with
parts      the parts of a name: constants, row values, facts of the transaction
bound      one rule of one relation, with the functions that its lines call
"""

from __future__ import annotations

from invalidator.rules.compiler.relation import compile_relation

__all__ = ["compile_relation"]
