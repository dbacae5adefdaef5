"""Codes about a file as such: reading it, its YAML, its fields."""

from __future__ import annotations

from typing import Final

from invalidator.codes._explanation import Code

TITLE: Final = "Files, YAML and fields"

CODES: Final = (
    Code(
        "unreadable-file",
        "error",
        "The file cannot be opened. The message gives the system's reason.",
        "Without its rules the daemon would leave everything stale that they name.",
    ),
    Code(
        "not-utf8",
        "error",
        "The file holds bytes that are no UTF-8. Save it as UTF-8; the place of the first such byte is given.",
        "Keys are bytes: a name that was read in another encoding would never equal your application's.",
    ),
    Code(
        "too-large",
        "error",
        "The file is larger than 4 MiB.",
        "A bound keeps a wrong path from filling the memory. A directory of rule files is read as one set of rules.",
    ),
    Code(
        "no-rules",
        "error",
        "A directory that is named as rules holds no file that ends in `.yaml` or `.yml`.",
        "An empty mount (a ConfigMap that is not there yet) would otherwise start a daemon that does nothing.",
    ),
    Code(
        "yaml-syntax",
        "error",
        "YAML cannot read this, or the strict reader refuses it: anchors, aliases, merge keys, tags and a second"
        " document. The help line says which character needs quotes.",
        "YAML reads much that nobody meant; what could be meant in two ways is not guessed.",
        "invalidate: {keys: [user:{id}]}",
        'invalidate: {keys: ["user:{id}"]}',
    ),
    Code(
        "duplicate-key",
        "error",
        "The same key stands twice in one mapping.",
        "Most YAML readers keep the last one in silence; half of what was written would not be in force.",
        '- name: user\n  table: public.users\n  table: public.people\n  invalidate: {keys: ["user:{id}"]}',
        '- name: user\n  table: public.people\n  invalidate: {keys: ["user:{id}"]}',
    ),
    Code(
        "unknown-field",
        "error",
        "There is no field of this name here. The help line says which was probably meant, or under which field it"
        " belongs.",
        "A misspelled field that is passed over is a rule that does something else than it says.",
        'on: [insert, update]\ninvalidate: {keys: ["user:{id}"]}',
        'events: [insert, update]\ninvalidate: {keys: ["user:{id}"]}',
    ),
    Code(
        "missing-field",
        "error",
        "A field that has to be there is not.",
        "",
        'rules:\n  - name: user\n    table: public.users\n    invalidate: {keys: ["user:{id}"]}',
        'version: 1\nrules:\n  - name: user\n    table: public.users\n    invalidate: {keys: ["user:{id}"]}',
    ),
    Code(
        "bad-value",
        "error",
        "A value of the wrong kind, of the wrong form or out of range. The help line shows the right form.",
        "",
        'events: [INSERT]\ninvalidate: {keys: ["user:{id}"]}',
        'events: [insert]\ninvalidate: {keys: ["user:{id}"]}',
    ),
    Code(
        "unquoted-template",
        "error",
        "YAML read a mapping where a template was meant: a value that begins with `{` needs quotes.",
        "Every YAML reader makes `{'id': None}` of `{id}`, without a word.",
        "invalidate:\n  keys:\n    - user:{id}\n    - {id}",
        'invalidate:\n  keys:\n    - user:{id}\n    - "profile:{id}"',
    ),
    Code(
        "settings-file",
        "error",
        "A settings file was given where rules were expected. Rule files are named as they are, settings by"
        " `--settings`.",
        "",
        "rules: rules.yaml\ntargets:\n  redis: {type: redis_keys, url: redis://localhost:6379/0}",
        'version: 1\nrules:\n  - {name: user, table: public.users, invalidate: {keys: ["user:{id}"]}}',
    ),
    Code(
        "rule-file",
        "error",
        "Rules were given where settings were expected, or stand in the settings. Settings differ from one place to"
        " the next and hold secrets, rules do not: so they have files of their own.",
        "",
        "rules:\n  - {name: user, table: public.users, invalidate: {keys: ['user:{id}']}}",
        "rules: rules.yaml",
        "settings",
    ),
    Code(
        "empty-field",
        "warning",
        "A field has no value. It counts as not written, and what `defaults:` says holds.",
        "`prefix:` with nothing behind it looks like no prefix, and is the default one.",
        'prefix:\ninvalidate: {keys: ["user:{id}"]}',
        'prefix: ""\ninvalidate: {keys: ["user:{id}"]}',
    ),
)
