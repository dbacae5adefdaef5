"""Codes about the outbox, known with ``--online``."""

from __future__ import annotations

from typing import Final

from invalidator.codes._explanation import Code

TITLE: Final = "The outbox (`source.type: outbox`, `--online`)"

CODES: Final = (
    Code(
        "outbox-missing",
        "error",
        "The table `invalidator.outbox`, or `invalidator.confirmed` beside it, is not there, or has other columns than"
        " this version writes and reads.",
        "There is nothing to read: `invalidator setup --source outbox --apply` makes it.",
    ),
    Code(
        "no-outbox-privilege",
        "error",
        "The daemon's role may not read, fill or empty the outbox: it needs USAGE on the schema `invalidator`, and"
        " SELECT, INSERT and DELETE on the table, and SELECT and UPDATE on `invalidator.confirmed`.",
        "It deletes what every target has applied and notes up to where, and sends its heartbeats through the table.",
    ),
    Code(
        "outbox-unguarded",
        "warning",
        "The trigger on `invalidator.outbox` that tells the daemon when somebody else removes rows is missing,"
        " disabled, or another one.",
        "A TRUNCATE or DELETE of rows that were not read yet would go by unnoticed."
        " `invalidator setup --source outbox --apply` makes it.",
    ),
    Code(
        "trigger-missing",
        "error",
        "A change that a rule wants is written down by nobody: the table, an operation or a partition has no trigger.",
        "The rule would never see it. Partitions that are made or attached later need triggers of their own for the"
        " statements that name them; `invalidator setup --source outbox --apply` makes them.",
    ),
    Code(
        "trigger-disabled",
        "error",
        "The trigger is there and does not fire: `ALTER TABLE … DISABLE TRIGGER`.",
        "Changes go by unseen, and what they made stale meanwhile stays so: empty the caches of this table afterwards.",
    ),
    Code(
        "trigger-outdated",
        "error",
        "The trigger was made for other rules, other settings (`wake`, `fire_always`) or other columns, or by another"
        " version.",
        "What it writes down may lack a column that a rule reads: the rule applies its coarse form. Or it leaves out an"
        " UPDATE for which a new rule would fire.",
    ),
    Code(
        "column-not-captured",
        "error",
        "The column is generated and virtual: it is computed when it is read, and triggers do not get it.",
        "The rule applies its coarse form. Use the columns that it is made of, or make it STORED.",
    ),
)
