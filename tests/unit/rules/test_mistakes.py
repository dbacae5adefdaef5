"""What people get wrong in rule files: each message says where, and what to type, and none of it by chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from invalidator.rules import document
from invalidator.yamlfile import Diagnostic, Invalid

HEAD = "version: 1\nrules:\n  - name: user\n    table: public.users\n"
KEYS = "    invalidate:\n      keys: ['user:{id}']\n"


def findings(folder: Path, text: str) -> list[Diagnostic]:
    path = folder / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        return list(document.load_with_warnings([path]).warnings)
    except Invalid as invalid:
        return list(invalid.diagnostics)


def advice(found: Diagnostic) -> str:
    return "\n".join(text for text in (found.help, found.fix) if text is not None)


def check(folder: Path, text: str, place: str, code: str, wanted: str) -> None:
    """One of the findings has this code at this place, and its advice tells what to type."""
    found = findings(folder, text)
    there = [each for each in found if f"{each.line}:{each.column}" == place and each.code == code]

    assert there, [(each.line, each.column, each.code, each.message) for each in found]
    assert any(wanted in advice(each) for each in there), [advice(each) for each in there]


def field(line: str) -> str:
    """A file with this field in line 5 of a rule that is right without it."""
    return f"{HEAD}    {line}\n{KEYS}"


def key(template: str) -> str:
    """A file with this key, which begins in line 5, column 26."""
    return f'{HEAD}    invalidate: {{keys: ["{template}"]}}\n'


# -- the mistakes of the design's evidence (reference/ux.md, 1.6 and 1.7) ----------------------------------------

KNOWN = {
    "on": (field("on: [insert, update]"), "5:5", "unknown-field", "did you mean 'events'?"),
    "a bare {id}": (f"{HEAD}    invalidate:\n      keys:\n        - {{id}}\n", "7:11", "unquoted-template", "'{id}'"),
    "an event": (field("events: [insert, updtae]"), "5:22", "bad-value", "did you mean 'update'?"),
    "cdn beside invalidate": (
        f"{HEAD}{KEYS}    cdn: ['user-{{id}}']\n",
        "7:5",
        "unknown-field",
        "indent it under line 5",
    ),
    "the same key twice": (HEAD + "    table: public.people\n" + KEYS, "5:5", "duplicate-key", ""),
    "yaml-syntax": (key("x").replace('["x"]', "[user:{id}]"), "5:29", "yaml-syntax", 'needs quotes, as in "user:{id}"'),
    "unknown-filter": (key("user:{id|lowercase}"), "5:35", "unknown-filter", "did you mean 'lower'?"),
    "unconfined-template": (key("{slug}"), "5:26", "unconfined-template", "as in 'user:{slug}'"),
    "template-syntax": (key("user:{id"), "5:31", "template-syntax", "write '}' behind the name, as in {id}"),
    "unknown-lookup": (key("user:{team.id}"), "5:32", "unknown-lookup", "write {id}"),
    "missing-field": (HEAD, "3:5", "missing-field", "invalidate: {keys: ["),
    "missing version": (HEAD.partition("\n")[2] + KEYS, "1:1", "missing-field", "version: 1"),
    "missing name": (HEAD.replace("name: user\n    ", "") + KEYS, "3:5", "missing-field", "name: user"),
    "missing table": (
        HEAD.replace("    table: public.users\n", "") + KEYS,
        "3:5",
        "missing-field",
        "table: public.users",
    ),
    "condition-syntax": (field("when: status like 'pub%'"), "5:18", "condition-syntax", "compare with '='"),
}

# -- YAML ------------------------------------------------------------------------------------------------------

YAML = {
    "tabs": (f"{HEAD}\tinvalidate: {{}}\n", "5:1", "yaml-syntax", "spaces, never tabs"),
    "no space behind a colon": (
        HEAD.replace("table: ", "table:") + KEYS,
        "4:5",
        "yaml-syntax",
        "write 'table: public.users'",
    ),
    "no space behind the colon of a first key": (
        HEAD.replace("name: ", "name:") + KEYS,
        "3:5",
        "yaml-syntax",
        "write 'name: user'",
    ),
    "no colon": (HEAD.replace("table:", "table") + KEYS, "4:5", "yaml-syntax", "write 'table: public.users'"),
    "a field that is indented too far": (
        HEAD.replace("    table", "     table") + KEYS,
        "4:6",
        "yaml-syntax",
        "begin in column 5, as line 3",
    ),
    "a field that is not indented enough": (
        HEAD.replace("    table", "   table") + KEYS,
        "4:4",
        "yaml-syntax",
        "begin in column 5, as line 3",
    ),
    "a quote that is not closed": (
        f"{HEAD}    invalidate: {{keys: ['user:{{id}}]}}\n",
        "5:25",
        "yaml-syntax",
        "close it",
    ),
    "a bracket that is not closed": (
        f"{HEAD}    invalidate:\n      keys: ['user:{{id}}'\n    soft: true\n",
        "6:13",
        "yaml-syntax",
        "close it with ']'",
    ),
    "a brace that is not closed": (
        f"{HEAD}    invalidate: {{keys: ['user:{{id}}']\n",
        "5:17",
        "yaml-syntax",
        "close it with '}'",
    ),
    "a no-break space": (f"{HEAD}    soft:\u00a0true\n{KEYS}", "5:10", "yaml-syntax", "replace it by a plain space"),
    "a colon in a text": (
        field("when: status: published"),
        "5:17",
        "yaml-syntax",
        'needs quotes: when: "status: published"',
    ),
    "quotes around a part": (
        field("when: 'published' = status"),
        "5:23",
        "yaml-syntax",
        "all of the value needs quotes: when: ",
    ),
    "a condition that begins with !": (
        field("when: !is_active"),
        "5:11",
        "yaml-syntax",
        "quote a value that starts with '!'",
    ),
    "an alias": (field("table: *.users").replace("    table: public.users\n", ""), "4:13", "yaml-syntax", "quote it"),
    "an include": (
        "version: 1\nrules: !include other.yaml\n",
        "2:8",
        "yaml-syntax",
        "a directory of rule files is read as one",
    ),
    "a value of another template engine": (field("prefix: {{ .Values.prefix }}"), "5:14", "yaml-syntax", "quotes"),
    "quotes inside quotes": (field("when: 'a = 'NO''"), "5:17", "yaml-syntax", "when: \"a = 'NO'\""),
    "two entries without a comma": (f'{HEAD}    invalidate: {{keys: ["a:x" "b:x"]}}\n', "5:31", "yaml-syntax", "','"),
    "an escape": (f'{HEAD}    invalidate: {{keys: ["a:\\{{id}}"]}}\n', "5:28", "yaml-syntax", "single quotes"),
    "a quote that another one closes": (
        f'{HEAD}    invalidate:\n      keys: ["a:{{id}}]\n      tags: ["b:{{id}}"]\n',
        "6:14",
        "yaml-syntax",
        "close it",
    ),
    "an empty file": ("", "1:1", "missing-field", "version: 1"),
    "a list of rules": ("- name: user\n", "1:1", "bad-value", "version: 1"),
    "rules by name": ("version: 1\nrules:\n  user:\n    table: public.users\n", "3:3", "bad-value", "'- '"),
    "rules of nothing": ("version: 1\nrules:\n", "2:7", "bad-value", "'- '"),
    "settings": ("rules: rules.yaml\ntargets:\n  redis: {type: redis_keys}\n", "1:1", "settings-file", "--settings"),
}

# -- fields ----------------------------------------------------------------------------------------------------

FIELDS = {
    "keys beside table": (f"{HEAD}    keys: ['user:{{id}}']\n", "5:5", "unknown-field", "put it under 'invalidate:'"),
    "keys in the column of invalidate": (
        f"{HEAD}    invalidate:\n    keys: ['user:{{id}}']\n",
        "6:5",
        "unknown-field",
        "indent it under line 5",
    ),
    "invalidate without a group": (f"{HEAD}    invalidate: ['user:{{id}}']\n", "5:17", "bad-value", "keys: ["),
    "coarse without a group": (field("coarse: users"), "5:13", "bad-value", "keys: ["),
    "coarse of nothing": (field("coarse:"), "5:12", "bad-value", "remove"),
    "one event": (field("events: insert"), "5:13", "bad-value", "write a list: [insert]"),
    "events in a text": (field("events: insert, update"), "5:13", "bad-value", "write a list: [insert, update]"),
    "all events": (field("events: all"), "5:13", "bad-value", "[insert, update, delete, truncate]"),
    "events in capitals": (field("events: [INSERT]"), "5:14", "bad-value", "did you mean 'insert'?"),
    "one key": (
        f"{HEAD}    invalidate:\n      keys: user:{{id}}\n",
        "6:13",
        "bad-value",
        'write a list: ["user:{id}"]',
    ),
    "keys in lines": (
        f"{HEAD}    invalidate:\n      keys: |\n        a:{{id}}\n        b:{{id}}\n",
        "6:13",
        "bad-value",
        'write a list: ["a:{id}", "b:{id}"]',
    ),
    "a key beside table": (f"{HEAD}    key: 'user:{{id}}'\n", "5:5", "unknown-field", "put it under 'invalidate:'"),
    "l2": (f"{HEAD}    invalidate: {{l2: ['user:{{id}}']}}\n", "5:18", "unknown-field", "did you mean 'keys'?"),
    "if": (field("if: status = 'x'"), "5:5", "unknown-field", "did you mean 'when'?"),
    "condition": (field("condition: status = 'x'"), "5:5", "unknown-field", "did you mean 'when'?"),
    "description": (field("description: users"), "5:5", "unknown-field", "allowed here: bulk_over"),
    "overflow in a lookup": (
        field("lookup: {o: {sql: 'SELECT o.a FROM o WHERE o.i = {id}', overflow: {}}}"),
        "5:61",
        "unknown-field",
        "'coarse'",
    ),
    "query": (field("lookup: {o: {query: 'SELECT 1'}}"), "5:18", "unknown-field", "did you mean 'sql'?"),
    "a lookup without a name": (
        field("lookup: {sql: 'SELECT o.a FROM o WHERE o.i = {id}'}"),
        "5:19",
        "bad-value",
        "put a name above it",
    ),
    "a lookup that is a text": (
        field("lookup: {o: 'SELECT o.a FROM o WHERE o.i = {id}'}"),
        "5:17",
        "bad-value",
        "sql:",
    ),
    "lookups in a list": (field("lookup: [{name: o, sql: 'SELECT 1'}]"), "5:13", "bad-value", "name"),
    "soft: yes": (field("soft: yes"), "5:11", "bad-value", "did you mean true?"),
    "a number in quotes": (field('bulk_over: "500"'), "5:16", "bad-value", "write it without quotes"),
    "a number with a k": (field("bulk_over: 1k"), "5:16", "bad-value", "write 1000"),
    "a number in groups": (field("bulk_over: 1_000"), "5:16", "bad-value", "write 1000"),
    "a delay without unit": (field("repeat_after: [5]"), "5:20", "bad-value", "5s"),
    "a delay in words": (field("repeat_after: [5 sec]"), "5:20", "bad-value", "as in 500ms or 5s"),
    "version in quotes": (HEAD.replace("1", '"1"') + KEYS, "1:10", "bad-value", "write 1"),
    "a table without schema": (HEAD.replace("public.", "") + KEYS, "4:12", "bad-value", "public.users"),
    "a table with database": (HEAD.replace("public.", "shop.public.") + KEYS, "4:12", "bad-value", "schema.table"),
    "a table with a blank": (HEAD.replace("users\n", "'users '\n") + KEYS, "4:12", "bad-value", "public.users"),
    "two tables": (HEAD.replace("public.users", "[a.b, a.c]") + KEYS, "4:12", "bad-value", "as in public.users"),
    "two tables in a text": (HEAD.replace("public.users", "a.b,a.c") + KEYS, "4:12", "bad-value", "a rule for each"),
    "a table with a dot": (HEAD.replace("users", "Order.Items") + KEYS, "4:12", "bad-value", 'public."Order.Items"'),
    "a rule's name": (HEAD.replace("user\n", "User Profile\n", 1) + KEYS, "3:11", "bad-value", "lower-case letters"),
    "changed in braces": (field("changed: [{email}]"), "5:15", "bad-value", "write email"),
    "changed in quoted braces": (field("changed: ['{email}']"), "5:15", "changed-habit", "write email"),
    "changed of new": (field("changed: [new.email]"), "5:15", "changed-habit", "write email"),
    "changed of the table": (field("changed: [users.email]"), "5:15", "changed-habit", "write email"),
    "changed of nothing": (field("changed: []"), "5:14", "bad-value", "remove"),
    "a prefix of nothing": (field("prefix:"), "5:5", "empty-field", 'prefix: ""'),
    "a condition of nothing": (field("when:"), "5:5", "empty-field", "remove"),
    "when: no": (field("when: no"), "5:11", "condition-bare-word", "remove"),
    "when: true": (field("when: true"), "5:11", "bad-value", "status = 'published'"),
    "a condition as a mapping": (field("when: {status: published}"), "5:11", "bad-value", "status = 'published'"),
    "Norway": (field("when: country = no"), "5:21", "condition-bare-word", "write 'no'"),
    "a text without quotes": (field("when: status = published"), "5:20", "condition-bare-word", "write 'published'"),
    "a text in double quotes": (field('when: status = "published"'), "5:20", "condition-syntax", "write 'published'"),
    "a column in braces": (field("when: \"{status} = 'x'\""), "5:12", "condition-syntax", ""),
    "a variable in a table": (HEAD.replace("public.", "${SCHEMA}.") + KEYS, "4:12", "template-habit", "'*'"),
}

# -- conditions ------------------------------------------------------------------------------------------------

CONDITIONS = {
    "a fact of the change": (field("when: meta.op = 'update'"), "5:11", "condition-syntax", "events:"),
    "a table": (field("when: users.status = 'x'"), "5:11", "condition-syntax", "the column alone"),
    "a quote in a text": (field("when: status = 'it's'"), "5:25", "condition-syntax", "write '' for a quote inside"),
    "a comma": (field("when: status = 'x', price = 3"), "5:23", "condition-syntax", "'and' or 'or'"),
    "a number in groups": (field("when: price > 1_000"), "5:19", "condition-syntax", "write 1000"),
    "a choice of texts": (field("when: status = 'a' or 'b'"), "5:27", "condition-syntax", "in ('a', 'b')"),
    "a pattern": (field("when: status matches '^x'"), "5:18", "condition-syntax", "there are no patterns"),
    "a variable": (field("when: ${status} = 'x'"), "5:11", "condition-syntax", "without braces"),
    "a numbered parameter": (field("when: status = $1"), "5:20", "condition-syntax", "written out"),
    "a parameter": (field("when: status = :x"), "5:20", "condition-syntax", "written out"),
    "a list without quotes": (field("when: status in [a, b]"), "5:22", "condition-syntax", "write 'a' for a text"),
    "is true": (field("when: is_active is true"), "5:24", "condition-syntax", "write is_active"),
    "a function": (field("when: lower(status) = 'x'"), "5:11", "condition-syntax", "changed(column, ...)"),
    "arithmetic": (field("when: new.price > old.price * 2"), "5:33", "condition-syntax", "no arithmetic"),
    "between": (field("when: price between 1 and 2"), "5:17", "condition-syntax", "a >= 1 and a <= 9"),
    "changed of new": (field("when: changed(new.status)"), "5:22", "condition-syntax", "changed(status)"),
    "changed of a text": (field("when: changed('status')"), "5:19", "condition-syntax", "changed(status)"),
    "nothing for deletes": (field("when: new.status = 'x'"), "5:11", "condition-never", "write status instead"),
}

# -- templates -------------------------------------------------------------------------------------------------

TEMPLATES = {
    "a table before a column": (key("user:{users.id}"), "5:32", "unknown-lookup", "write {id}"),
    "NEW": (key("user:{NEW.id}"), "5:32", "unknown-lookup", "write {new.id}"),
    "row": (key("user:{row.id}"), "5:32", "unknown-lookup", "write {id}"),
    "after": (key("user:{after.id}"), "5:32", "unknown-lookup", "write {new.id}"),
    "before": (key("user:{before.id}"), "5:32", "unknown-lookup", "write {old.id}"),
    "a scope that comes near": (key("user:{nwe.id}"), "5:32", "unknown-lookup", "did you mean 'new'?"),
    "a number": (key("user:{0}"), "5:32", "template-syntax", "write the name of a column, as in {id}"),
    "nothing": (key("user:{}"), "5:32", "template-syntax", "write the name of a column, as in {id}"),
    "a format": (key("user:{id:d}"), "5:34", "template-syntax", "{id|lower}"),
    "a conversion": (key("user:{id!r}"), "5:34", "template-syntax", "{id|lower}"),
    "a function": (key("user:{lower(id)}"), "5:37", "template-syntax", "write {id|lower}"),
    "an alternative": (key("user:{id or 'x'}"), "5:35", "template-syntax", "write {id|default:'x'}"),
    "arithmetic": (key("user:{id + 1}"), "5:35", "template-syntax", "{id|lower}"),
    "JSON by an arrow": (key("user:{data->>'id'}"), "5:36", "template-syntax", "lookup"),
    "JSON by a dot": (key("user:{data.user.id}"), "5:41", "template-syntax", "one dot"),
    "an index": (key("user:{tags[0]}"), "5:36", "template-syntax", "lookup"),
    "a name with a blank": (key("user:{user id}"), "5:37", "template-syntax", 'write {"user id"}'),
    "a name with a hyphen": (key("user:{user-id}"), "5:36", "template-syntax", '{"user-id"}'),
    "lookup before its name": (key("user:{lookup.order.id}"), "5:44", "template-syntax", "write {order.id}"),
    "a schema and a table": (key("user:{public.users.id}"), "5:44", "template-syntax", "else {id}"),
    "a filter behind a dot": (key("user:{slug.lower}"), "5:32", "unknown-lookup", "write {slug|lower}"),
    "JSON by one dot": (key("user:{settings.theme}"), "5:32", "unknown-lookup", "JSON"),
    "a column in single quotes": (key("user:{'id'}"), "5:32", "template-syntax", "write {id}"),
    "a filter in capitals": (key("user:{id|LOWER}"), "5:35", "unknown-filter", "did you mean 'lower'?"),
    "a filter of others": (key("user:{id|downcase}"), "5:35", "unknown-filter", "did you mean 'lower'?"),
    "a fact of others": (key("user:{meta.operation}"), "5:37", "unknown-meta", "did you mean 'op'?"),
    "a column in brackets": (key("user:[id]"), "5:31", "glob-in-key", "{id}"),
    "a blank at the end": (key("user:{id} "), "5:35", "template-habit", "remove it"),
    "a blank at the beginning": (key(" user:{id}"), "5:26", "template-habit", "remove it"),
    "a star": (key("user:{id}:*"), "5:36", "glob-in-key", "under coarse: or l1:"),
    "typographic quotes": (
        f"{HEAD}    invalidate:\n      keys:\n        - “user:{{id}}”\n",
        "7:11",
        "template-habit",
        "plain quotes",
    ),
    "an invisible character": (key("user:\u200b{id}"), "5:31", "template-habit", "remove"),
    "a no-break space in a name": (key("user:\u00a0{id}"), "5:31", "template-habit", "remove"),
    "a row in a coarse form": (field("coarse: {keys: ['user:{id}']}"), "5:27", "row-in-coarse", "write '*'"),
}


# -- lookups ---------------------------------------------------------------------------------------------------


def sql(text: str, template: str = "user:{order.user_id}") -> str:
    """A file with a lookup whose SQL begins in line 7, column 14."""
    lookup = f"    lookup:\n      order:\n        sql: {text}\n"
    return f'{HEAD}{lookup}    invalidate: {{keys: ["{template}"], tags: [x]}}\n    coarse: {{tags: [x]}}\n'


SELECT = "SELECT o.user_id FROM orders o WHERE o.id = "
LOOKUPS = {
    "no placeholder": (sql(SELECT + "1"), "7:14", "lookup-syntax", "bind a column: … WHERE o.id = {order_id}"),
    ":name": (sql(SELECT + ":order_id"), "7:58", "lookup-syntax", "write {order_id}"),
    "?": (sql(SELECT + "?"), "7:58", "lookup-syntax", "as in {order_id}"),
    "$1": (sql(SELECT + "$1"), "7:58", "lookup-syntax", "as in {order_id}"),
    "%s": (sql(SELECT + "%s"), "7:58", "lookup-syntax", "as in {order_id}"),
    "quotes": (sql(SELECT + "'{order_id}'"), "7:59", "lookup-syntax", "write it outside of the quotes"),
    "a semicolon": (sql(SELECT + "{order_id};"), "7:68", "lookup-syntax", "remove the ';'"),
    "two statements": (sql(SELECT + "{id}; SELECT 1"), "7:62", "lookup-syntax", "another lookup"),
    "a statement that writes": (sql("DELETE FROM o WHERE id = {id}"), "7:14", "lookup-syntax", "begins with SELECT"),
    "a name that comes near": (
        sql(SELECT + "{id}", "user:{ordr.user_id}"),
        "8:32",
        "unknown-lookup",
        "did you mean 'order'?",
    ),
    "no name": (sql(SELECT + "{id}", "user:{user_id}"), "6:7", "lookup-unused", "{order.id}"),
}

# -- tests in rule files ---------------------------------------------------------------------------------------


def with_test(fields: str) -> str:
    """A file with a test in line 7."""
    return f"{HEAD}{KEYS}tests:\n  - {{name: a, table: public.users, {fields}}}\n"


TESTS = {
    "no event": (with_test("expect: {}"), "8:5", "test-event", "insert: {id: 1}"),
    "two events": (
        with_test("insert: {id: 1}, delete: {id: 1}, expect: {}"),
        "8:5",
        "test-event",
        "write a test for each",
    ),
    "nothing expected": (with_test("insert: {id: 1}"), "8:5", "missing-field", "expect: "),
    "a list expected": (with_test("insert: {id: 1}, expect: ['user:1']"), "8:61", "bad-value", "keys"),
    "an update of one row": (with_test("update: {id: 1}, expect: {}"), "8:36", "missing-field", "new: {id: 1"),
    "images beside update": (with_test("old: {id: 1}, expect: {}"), "8:36", "unknown-field", "put it under 'update:'"),
    "truncate of nothing": (with_test("truncate: , expect: {}"), "8:5", "test-event", "write truncate: {}"),
    "an update in other words": (
        with_test("update: {before: {id: 1}, new: {id: 1}}, expect: {}"),
        "8:45",
        "unknown-field",
        "did you mean 'old'?",
    ),
    "patterns expected": (
        with_test("insert: {id: 1}, expect: {patterns: ['user:*']}"),
        "8:62",
        "unknown-field",
        "did you mean 'key_patterns'?",
    ),
    "a full identity": (
        with_test("identity: [FULL], insert: {id: 1}, expect: {keys: ['user:1']}"),
        "8:47",
        "test-missing-column",
        "leave identity: out",
    ),
    "truncate: true": (with_test("truncate: true, expect: {}"), "8:46", "bad-value", "write {}"),
    "another table": (
        with_test("insert: {id: 1}, expect: {}").replace("users, insert", "user, insert"),
        "8:22",
        "test-without-rule",
        "did you mean 'public.users'?",
    ),
    "a column": (with_test("insert: {name: x}, expect: {}"), "8:36", "test-missing-column", "add id: …"),
    "a number expected": (with_test("insert: {id: 1}, expect: {keys: [1]}"), "8:69", "bad-value", "'1'"),
}

ALL = {
    f"{chapter}: {name}": mistake
    for chapter, mistakes in {
        "known": KNOWN,
        "yaml": YAML,
        "fields": FIELDS,
        "conditions": CONDITIONS,
        "templates": TEMPLATES,
        "lookups": LOOKUPS,
        "tests": TESTS,
    }.items()
    for name, mistake in mistakes.items()
}


@pytest.mark.parametrize(("text", "place", "code", "wanted"), ALL.values(), ids=ALL.keys())
def test_a_mistake_is_told_at_its_place_with_what_to_type(
    tmp_path: Path, text: str, place: str, code: str, wanted: str
) -> None:
    check(tmp_path, text, place, code, wanted)
