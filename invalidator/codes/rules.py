"""Codes about what a rule means, known from the rule files alone."""

from __future__ import annotations

from typing import Final

from invalidator.codes._explanation import Code

TITLE: Final = "Rules"

CODES: Final = (
    Code(
        "duplicate-rule",
        "error",
        "Two rules have the same name. Names are unique over all files.",
        "The name is the label of metrics and logs; two rules of one name could not be told apart.",
        "version: 1\nrules:\n"
        '  - {name: user, table: public.users, invalidate: {keys: ["user:{id}"]}}\n'
        '  - {name: user, table: public.people, invalidate: {keys: ["person:{id}"]}}',
        "version: 1\nrules:\n"
        '  - {name: user, table: public.users, invalidate: {keys: ["user:{id}"]}}\n'
        '  - {name: person, table: public.people, invalidate: {keys: ["person:{id}"]}}',
    ),
    Code(
        "empty-invalidate",
        "error",
        "The rule names nothing that could be dropped.",
        "It would look like a rule that works.",
        "invalidate: {}",
        'invalidate: {keys: ["user:{id}"]}',
    ),
    Code(
        "changed-without-update",
        "warning",
        "`changed:` narrows updates, and the rule's `events:` hold no update.",
        "Either `update` is missing in `events:`, and a changed row leaves its entries stale, or `changed:` says"
        " nothing.",
        'events: [insert, delete]\nchanged: [email]\ninvalidate: {keys: ["user:{id}"]}',
        'events: [insert, update, delete]\nchanged: [email]\ninvalidate: {keys: ["user:{id}"]}',
    ),
    Code(
        "same-target",
        "warning",
        "Another rule names the same for the same table and event.",
        "Usually one of the two is left over. Nothing is dropped twice, but a change of one rule has no effect.",
        "version: 1\nrules:\n"
        '  - {name: user, table: public.users, invalidate: {keys: ["user:{id}"]}}\n'
        '  - {name: profile, table: public.users, invalidate: {keys: ["user:{id}"]}}',
        "version: 1\nrules:\n"
        '  - {name: user, table: public.users, invalidate: {keys: ["user:{id}"]}}\n'
        '  - {name: profile, table: public.users, invalidate: {keys: ["profile:{id}"]}}',
    ),
    Code(
        "row-in-coarse",
        "error",
        "A coarse form holds a row value, or a fact of one change such as `{meta.xid}`.",
        "The coarse form is applied when no row is known: after a TRUNCATE, a bulk change or a gap.",
        'invalidate: {keys: ["user:{id}"]}\ncoarse: {keys: ["user:{id}"]}',
        'invalidate: {keys: ["user:{id}"]}\ncoarse: {keys: ["user:*"]}',
    ),
    Code(
        "coarse-missing",
        "error",
        "A rule has CDN tags over row values, and no coarse CDN tag.",
        "CDNs know no patterns, so none can be derived: after a TRUNCATE or a gap nobody could tell what is stale"
        " there. Or consent with `purge_all_on_gap: true` in the target's settings.",
        'invalidate: {cdn: ["product-{id}"]}',
        'invalidate: {cdn: ["product-{id}"]}\ncoarse: {cdn: [products]}',
    ),
    Code(
        "coarse-derived",
        "info",
        "The coarse form of this rule is likely to be used, because it has `bulk_over:`, a lookup or a listed truncate,"
        " and scans all of Redis for a pattern.",
        "A tag set that all of these keys are in costs one read instead of a SCAN over every key. But a written tag"
        " replaces the pattern: it reaches only those keys that your application added to the set (SADD) when it filled"
        " them. `keys: []` says that it does so for each; if it does not, leave the pattern to be derived.",
        'bulk_over: 100\ninvalidate: {keys: ["user:{id}"]}',
        'bulk_over: 100\ninvalidate: {keys: ["user:{id}"]}\ncoarse: {tags: [users], keys: []}',
    ),
    Code(
        "coarse-tag-only",
        "warning",
        "The coarse form has a tag and no keys, and nothing in the file shows that your application keeps tag sets: no"
        " rule drops that tag exactly, and this one drops none. A written `tags:` or `keys:` replaces what would be"
        " derived for both.",
        "After a TRUNCATE, a bulk change or a gap only those keys go that are in the tag's set; the others stay stale.",
        'invalidate: {keys: ["user:{id}"]}\ncoarse: {tags: [users]}',
        'invalidate: {keys: ["user:{id}"]}\ncoarse: {keys: ["user:*"]}',
    ),
    Code(
        "pattern-too-wide",
        "warning",
        "The pattern derived for the coarse form has less than three literal characters.",
        "It would drop nearly everything, also what other applications keep in the same Redis.",
        'invalidate: {keys: ["u{id}"]}',
        'invalidate: {keys: ["user:{id}"]}',
    ),
    Code(
        "duplicate-entry",
        "warning",
        "The same stands twice in one list.",
        "It is used once. Often one of the two was meant to be another.",
        'events: [insert, update, insert]\ninvalidate: {keys: ["user:{id}"]}',
        'events: [insert, update, delete]\ninvalidate: {keys: ["user:{id}"]}',
    ),
    Code(
        "table-too-wide",
        "warning",
        "The rule looks at every table of every schema.",
        "Each change of any table is decoded and rendered, and the publication needs all tables.",
        '- {name: any, table: "*.*", invalidate: {tags: ["{meta.table}"]}}',
        '- {name: any, table: public.*, invalidate: {tags: ["{meta.table}"]}}',
    ),
    Code(
        "soft-without-cdn",
        "warning",
        "`soft:` marks CDN objects stale instead of removing them, and the rule has no CDN tag.",
        "Keys, tags and L1 patterns are dropped as always: nothing is served stale there.",
        'soft: true\ninvalidate: {keys: ["user:{id}"]}',
        'soft: true\ninvalidate: {keys: ["user:{id}"], cdn: ["user-{id}"]}\ncoarse: {cdn: [users]}',
    ),
    Code(
        "changed-omits-column",
        "warning",
        "`changed:` leaves out a column that a template, the SQL of a lookup or the condition of the rule holds. For a"
        " column of the prefix it is a hint.",
        "An update of that column alone does not fire the rule, and what was cached under its old value, or while the"
        " condition held, stays. A column that never changes can be named too: that costs nothing.",
        'changed: [title]\ninvalidate: {keys: ["post:{slug}"]}',
        'changed: [title, slug]\ninvalidate: {keys: ["post:{slug}"]}',
    ),
    Code(
        "changed-habit",
        "warning",
        "`changed:` holds plain names of columns, each of which is compared with itself; this one is written like a"
        " reference.",
        "A column of this very name is hardly there, and without it the rule can only apply its coarse form.",
        'changed: [new.email]\ninvalidate: {keys: ["user:{id}"]}',
        'changed: [email]\ninvalidate: {keys: ["user:{id}"]}',
    ),
    Code(
        "changed-and-delete",
        "info",
        "`changed:` narrows updates only: inserts and deletes that `events:` lists always count.",
        "Who wanted to look at some updates only drops more than that.",
        'events: [update, delete]\nchanged: [title]\ninvalidate: {keys: ["post:{id}"]}',
        'events: [update]\nchanged: [title]\ninvalidate: {keys: ["post:{id}"]}',
    ),
    Code(
        "event-drops-nothing",
        "warning",
        "The rule looks at deletes, and every template needs the row after the change; or it asks for inserts, and"
        " every template needs the row before.",
        "What the deleted row was cached under stays. A bare column has a value for every event.",
        'invalidate: {keys: ["user:{new.id}"]}',
        'invalidate: {keys: ["user:{id}"]}',
    ),
)
