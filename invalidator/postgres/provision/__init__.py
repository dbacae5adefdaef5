"""The SQL that makes a database ready, worked out from its catalog and from what the rules need.

    Need, Request      what is wanted
    facts              what is there (reads the catalog)
    plan               wanted minus there: steps, findings (decides, no I/O)
    fitness            what makes an UPDATE fail, and statements that never do
    removal            what of it can be taken away again
    offline_plan       the same without a database: generic and guarded
    apply              runs the steps
    outbox_…           the same for databases without logical replication
    notify_…           the same for applications that notify by themselves
    …_hook             event triggers that tell the stream of DDL

One rule stands above all: no statement may make the application's own UPDATE or DELETE fail. Postgres refuses both on a
table that a publication of updates names but that has no replica identity, or whose column list or row filter does not
fit that identity (https://www.postgresql.org/docs/current/logical-replication-publication.html).
"""

from __future__ import annotations

from invalidator.postgres.provision.hook import hook_facts, with_hook, without_hook
from invalidator.postgres.provision.notify import notify_plan, notify_removal
from invalidator.postgres.provision.offline import offline_plan
from invalidator.postgres.provision.outbox import (
    OutboxFacts,
    OutboxRequest,
    outbox_facts,
    outbox_plan,
    outbox_removal,
)
from invalidator.postgres.provision.plan import plan
from invalidator.postgres.provision.providers import Provider
from invalidator.postgres.provision.publication import operations
from invalidator.postgres.provision.removal import removal
from invalidator.postgres.provision.run import apply, facts, removal_facts, with_others
from invalidator.postgres.provision.tables import entries
from invalidator.postgres.provision.words import (
    Facts,
    Finding,
    Lookup,
    Mark,
    Need,
    Plan,
    Purpose,
    Request,
    Rows,
    Step,
)

__all__ = [
    "Facts",
    "Finding",
    "Lookup",
    "Mark",
    "Need",
    "OutboxFacts",
    "OutboxRequest",
    "Plan",
    "Provider",
    "Purpose",
    "Request",
    "Rows",
    "Step",
    "apply",
    "entries",
    "facts",
    "hook_facts",
    "notify_plan",
    "notify_removal",
    "offline_plan",
    "operations",
    "outbox_facts",
    "outbox_plan",
    "outbox_removal",
    "plan",
    "removal",
    "removal_facts",
    "with_hook",
    "with_others",
    "without_hook",
]
