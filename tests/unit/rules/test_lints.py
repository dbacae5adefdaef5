"""What is said about a rule that can be used: each lint at its place, and nothing of what comes near and is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from invalidator.rules import document
from invalidator.yamlfile import Diagnostic, Invalid

HEAD = "version: 1\nrules:\n  - name: r\n    table: public.posts\n"


def findings(folder: Path, rule: str, head: str = HEAD) -> list[Diagnostic]:
    """What is found in a file with this rule, whose fields begin on line 5 in column 5."""
    path = folder / "rules.yaml"
    path.write_text(head + "".join(f"    {line}\n" for line in rule.splitlines()), encoding="utf-8")
    try:
        return list(document.load_with_warnings([path]).warnings)
    except Invalid as invalid:
        return list(invalid.diagnostics)


def only(folder: Path, rule: str) -> Diagnostic:
    [found] = findings(folder, rule)
    return found


def shown(found: Diagnostic) -> tuple[int, int, int, str, str]:
    return found.line, found.column, found.width, found.severity, found.code


def codes(folder: Path, rule: str) -> list[str]:
    return [found.code for found in findings(folder, rule)]


# -- entries and options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "column", "entry"),
    [
        ("events: [update, insert, update]\ninvalidate: {keys: ['post:{id}']}", 30, "update"),
        ("changed: [title, title]\ninvalidate: {keys: ['post:{id}']}", 22, "title"),
        ("invalidate: {keys: ['post:{id}', 'post:{id}']}", 38, "post:{id}"),
        ("invalidate: {cdn: [posts, posts]}", 31, "posts"),
        ("coarse: {tags: [posts, posts]}\ninvalidate: {tags: [posts], keys: ['post:{id}']}", 28, "posts"),
    ],
)
def test_an_entry_that_stands_twice_is_told_at_the_second(tmp_path: Path, rule: str, column: int, entry: str) -> None:
    found = only(tmp_path, rule)

    assert shown(found)[:2] == (5, column)
    assert (found.severity, found.code) == ("warning", "duplicate-entry")
    assert found.message == f"'{entry}' stands twice in this list"
    assert found.help == "remove one of them"


def test_the_same_name_may_be_a_key_a_tag_and_a_cdn_tag(tmp_path: Path) -> None:
    assert codes(tmp_path, "invalidate: {keys: ['post:{id}'], tags: ['post:{id}'], cdn: ['post:{id}']}") == []


def test_a_rule_for_every_table_of_every_schema_is_too_wide(tmp_path: Path) -> None:
    head = HEAD.replace("public.posts", '"*.*"')
    [found] = findings(tmp_path, "invalidate: {tags: ['{meta.table}']}", head)

    assert shown(found) == (4, 12, 5, "warning", "table-too-wide")
    assert found.help == "name a schema, as in 'public.*', or write a rule per table"


@pytest.mark.parametrize("table", ["public.*", '"*.posts"', "tenant_*.*"])
def test_a_glob_that_still_says_something_is_right(tmp_path: Path, table: str) -> None:
    assert findings(tmp_path, "invalidate: {tags: ['{meta.table}']}", HEAD.replace("public.posts", table)) == []


def test_soft_without_a_cdn_tag_says_nothing(tmp_path: Path) -> None:
    found = only(tmp_path, "soft: true\ninvalidate: {keys: ['post:{id}']}")

    assert shown(found) == (5, 5, 4, "warning", "soft-without-cdn")
    assert found.message == "`soft:` is about CDN tags, and this rule has none"


@pytest.mark.parametrize(
    ("rule", "defaults"),
    [
        ("soft: true\ninvalidate: {cdn: [posts]}", ""),
        ("soft: false\ninvalidate: {keys: ['post:{id}']}", ""),
        ("invalidate: {keys: ['post:{id}']}", "defaults: {soft: true}\n"),
    ],
)
def test_soft_may_be_a_default_that_some_rules_do_not_need(tmp_path: Path, rule: str, defaults: str) -> None:
    assert findings(tmp_path, rule, defaults + HEAD) == []


# -- habits ----------------------------------------------------------------------------------------------------

HABITS = [
    ("post:{{id}}", 5, 6, "{{id}}: '{{' and '}}' are literal braces here", "write {id}"),
    ("post:{{ id }}", 5, 8, "{{ id }}: '{{' and '}}' are literal braces here", "write {id}"),
    ("post:{{ post.slug | lower }}", 5, 23, "{{ post.slug | lower }}: '{{' and '}}' are", "write {slug}"),
    ("post:{{.ID}}", 5, 7, "{{.ID}}: '{{' and '}}' are literal braces here", "write {id}"),
    ("post:{{title}}", 5, 9, "{{title}}: '{{' and '}}' are literal braces here", "write {title}"),
    ("{{slug}}:post", 0, 8, "{{slug}}: '{{' and '}}' are literal braces here", "write {slug}"),
    ("post:{{id}}:{locale}", 5, 6, "{{id}}: '{{' and '}}' are literal braces here", "write {id}"),
    ("post:${id}", 5, 5, "${id}: the '$' stays in the name", "write {id}"),
    ("post${id}", 4, 5, "${id}: the '$' stays in the name", "write {id}"),
    ("post:#{id}", 5, 5, "#{id}: the '#' stays in the name", "write {id}"),
    ("post:%{id}", 5, 5, "%{id}: the '%' stays in the name", "write {id}"),
    ("post:${slug|lower}", 5, 13, "${slug|lower}: the '$' stays in the name", "write {slug|lower}"),
    ("post:$id", 5, 3, "$id: this is literal text, no column", "write {id}"),
    ("post:$title", 5, 6, "$title: this is literal text, no column", "write {title}"),
    ("post:$post_id:{locale}", 5, 8, "$post_id: this is literal text, no column", "write {post_id}"),
    ("post:%(id)s", 5, 6, "%(id)s: this is literal text, no column", "write {id}"),
    ("post:{id}:%(title)s", 10, 9, "%(title)s: this is literal text, no column", "write {title}"),
    ("post:%s", 5, 2, "%s: this is literal text, no value", "write the column that is meant in braces, as in {id}"),
    ("post:{id}:%d", 10, 2, "%d: this is literal text, no value", "write the column that is meant in braces, as in"),
    ("post:<id>", 5, 4, "<id>: this is literal text, no column", "write {id}"),
    ("post:<%= post.id %>", 5, 14, "<%= post.id %>: this is literal text, no column", "write {id}"),
    ("/posts/:id", 7, 3, ":id: this is literal text, no column", "write {id}"),
    ("post::id", 5, 3, ":id: this is literal text, no column", "write {id}"),
    (
        "post:{ID}",
        5,
        4,
        "{ID}: columns are spelled as in the database, and Postgres makes small letters",
        "write {id}; ",
    ),
    ("post:{new.SLUG|lower}", 5, 16, "{new.SLUG|lower}: columns are spelled as in the database", "write {slug}; or"),
]


@pytest.mark.parametrize(("text", "offset", "width", "message", "help_text"), HABITS, ids=[each[0] for each in HABITS])
def test_a_habit_of_another_language_is_told_at_its_place(
    tmp_path: Path, text: str, offset: int, width: int, message: str, help_text: str
) -> None:
    found = [each for each in findings(tmp_path, f'invalidate: {{tags: ["{text}"]}}') if each.code == "template-habit"]

    assert [shown(each) for each in found] == [(5, 26 + offset, width, "warning", "template-habit")]
    assert found[0].message.startswith(message)
    assert (found[0].help or "").startswith(help_text)


RIGHT = [
    "{{users}}:list",  # a hash tag of Redis Cluster that holds no value
    "{{users}}:{id}",
    "post:{{{id}}}",
    "post:{id|hashtag}",
    "user#{id}",  # a separator
    "post#comments",
    "50%{id}",
    "post:{title|default:'$id'}",
    "post:{title|default:'%s'}",
    "post:{title|default:'{{id}}'}",
    "post:{title|default:'<id>'}",
    "price:usd$:{id}",
    "a$id:{id}",
    "$app:{id}",
    "post:$all:{id}",
    "users::all",  # Spring
    "App::Post:{id}",
    "/posts/{id}",
    "/posts/:new:{id}",
    ":memory:{id}",
    "post:<none>:{id}",
    "%d0%b0:{id}",
    "post:100%:{id}",
    'post:{\\"ID\\"}',  # a column that was made with quotes
    "post:{userId}",
    "post:{Id}",
    "post:ID:{id}",
    "post:{meta.xid}:{id}",
]


@pytest.mark.parametrize("text", RIGHT)
def test_what_comes_near_a_habit_and_could_be_meant_is_not_mentioned(tmp_path: Path, text: str) -> None:
    assert "template-habit" not in codes(tmp_path, f'invalidate: {{tags: ["{text}"]}}')


def test_a_name_that_the_rule_uses_as_a_column_is_meant_as_one_everywhere(tmp_path: Path) -> None:
    rule = 'invalidate: {keys: ["post:{id}"], tags: ["{{section}}:posts", "a::section", "b:$section:{id}"]}'

    assert codes(tmp_path, "when: area = 'x'\n" + rule) == []
    assert codes(tmp_path, "when: section = 'x'\n" + rule) == ["template-habit"] * 3


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("post:.*", 5, "'.*' is no regular expression here"),
        ("post:%", 5, "'%' is no wildcard here"),
        ("post:(.*)", 6, "'.*' is no regular expression here"),
    ],
)
def test_other_wildcards_are_told_where_a_glob_may_stand(tmp_path: Path, text: str, offset: int, message: str) -> None:
    rule = f"coarse: {{l1: ['{text}']}}\ninvalidate: {{l1: ['post:{{id}}']}}"
    found = only(tmp_path, rule)

    assert shown(found)[:2] == (5, 20 + offset)
    assert (found.code, found.help) == ("template-habit", "write '*' for any characters")
    assert found.message.startswith(message)


@pytest.mark.parametrize("text", ["post.*", "post:{id}.*", "post:[0-9].*", "post:100%", "post:%:*"])
def test_a_dot_or_a_percent_sign_that_separates_is_right(tmp_path: Path, text: str) -> None:
    assert codes(tmp_path, f"invalidate: {{l1: ['{text}']}}") == []


def test_a_habit_in_a_prefix_is_told_once_for_the_whole_file(tmp_path: Path) -> None:
    head = "version: 1\ndefaults: {prefix: 't${tenant_id}:'}\nrules:\n  - name: r\n    table: public.posts\n"
    second = "  - {name: s, table: public.users, invalidate: {keys: ['user:{id}']}}\n"
    path = tmp_path / "rules.yaml"
    path.write_text(head + "    invalidate: {keys: ['post:{id}']}\n" + second, encoding="utf-8")
    [found] = document.load_with_warnings([path]).warnings

    assert shown(found) == (2, 22, 12, "warning", "template-habit")


# -- images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "text", "reason"),
    [
        ("delete", "{new.slug}", "{new.slug} has a value for inserts and updates only"),
        ("insert", "{old.slug}", "{old.slug} has a value for updates and deletes only"),
        ("insert, delete", "{old.slug}:{new.slug}", "new and old values come together in updates only"),
        ("truncate, delete", '{new."a b"|lower}', "{new.a b} has a value for inserts and updates only"),
    ],
)
def test_a_template_that_no_event_has_values_for_is_told(tmp_path: Path, events: str, text: str, reason: str) -> None:
    rule = f"events: [{events}]\ncoarse: {{tags: [x], keys: []}}\ninvalidate:\n  keys: ['post:{{id}}', 'post:{text}']"
    found = only(tmp_path, rule)

    assert shown(found)[:2] == (8, 27)
    assert (found.severity, found.code) == ("warning", "template-never-renders")
    assert found.message == f"this template never renders: {reason}"
    assert found.help == (
        f"events: is [{events}]; add the event that is meant, or write the bare column: it fits every event"
    )


def test_a_rule_without_any_template_that_renders_is_refused(tmp_path: Path) -> None:
    found = only(tmp_path, "events: [delete]\ninvalidate: {keys: ['post:{new.id}']}")

    assert shown(found) == (6, 25, 15, "error", "template-never-renders")
    assert found.message.endswith("; nor does any other of this rule")


def test_the_prefix_and_the_lookup_of_a_template_count(tmp_path: Path) -> None:
    by_prefix = only(
        tmp_path, "events: [delete]\nprefix: 't{new.tenant}:'\ninvalidate: {keys: ['post:{id}'], cdn: [x]}"
    )
    rule = "events: [delete]\nlookup: {a: {sql: 'SELECT a.n FROM a WHERE a.id = {new.author}'}}\n"
    by_lookup, *_ = findings(
        tmp_path, rule + "coarse: {tags: [x], keys: []}\ninvalidate: {keys: ['author:{a.n}'], cdn: [x]}"
    )

    assert by_prefix.message == "this template never renders: {new.tenant} has a value for inserts and updates only"
    assert by_lookup.message == (
        "this template never renders: {new.author} of the lookup 'a' has a value for inserts and updates only"
    )


@pytest.mark.parametrize(
    "rule",
    [
        "events: [update]\ninvalidate: {keys: ['post:{old.slug}:{new.slug}']}",
        "events: [insert]\ninvalidate: {keys: ['post:{new.slug}', 'post:{slug}']}",
        "events: [delete]\ninvalidate: {keys: ['post:{old.slug}']}",
        "events: [truncate]\ncoarse: {keys: ['post:*']}\ninvalidate: {keys: ['post:{new.slug}']}",
        "events: [delete]\nprefix: 't{new.tenant}:'\ninvalidate: {cdn: [x]}",
    ],
)
def test_a_template_that_some_event_has_values_for_is_right(tmp_path: Path, rule: str) -> None:
    assert codes(tmp_path, rule) == []


def test_a_delete_that_drops_nothing_is_told_also_if_nobody_asked_for_deletes(tmp_path: Path) -> None:
    for events in ("", "events: [update, delete]\n"):
        found = only(tmp_path, f"{events}invalidate: {{keys: ['post:{{new.id}}']}}")

        assert shown(found)[1:] == (5, 10, "warning", "event-drops-nothing")
        assert found.message == (
            "delete drops nothing: there is no new row then, and each template needs it, as by {new.id}"
        )
        assert found.help == "write the bare column, which every row has; or leave delete out of events:"


def test_an_insert_that_drops_nothing_is_told_only_if_somebody_asked_for_inserts(tmp_path: Path) -> None:
    rule = "invalidate: {keys: ['post:{old.slug}']}"

    assert codes(tmp_path, rule) == []
    assert only(tmp_path, f"events: [insert, update]\n{rule}").message.startswith(
        "insert drops nothing: there is no old"
    )


@pytest.mark.parametrize(
    "rule",
    [
        "invalidate: {keys: ['post:{new.slug}'], tags: ['post:{id}']}",
        "invalidate: {keys: ['post:{new.slug}', 'post:{old.slug}']}",
        "invalidate: {keys: ['post:{new.slug}', posts]}",
        "events: [insert, update]\ninvalidate: {keys: ['post:{new.slug}']}",
    ],
)
def test_a_delete_for_which_something_is_dropped_is_right(tmp_path: Path, rule: str) -> None:
    assert codes(tmp_path, rule) == []


# -- changed ---------------------------------------------------------------------------------------------------


def test_a_column_that_names_what_is_dropped_must_be_looked_at(tmp_path: Path) -> None:
    found = only(tmp_path, "changed: [title]\ninvalidate: {keys: ['post:{slug}', 'post:{slug}:{lang}']}")

    assert shown(found) == (5, 5, 7, "warning", "changed-omits-column")
    assert found.message == "`changed:` leaves out slug and lang, though what is dropped is named by them"
    assert found.why == (
        "an UPDATE of slug and lang alone would not fire the rule: what they are part of would stay stale under the"
        " old name"
    )
    assert found.fix == "changed: [title, slug, lang]"


@pytest.mark.parametrize(
    "invalidate", ["keys: ['post:{old.slug}', posts]", "cdn: ['post-{slug}']", "l1: ['post:{slug}']"]
)
def test_every_group_and_the_old_value_count(tmp_path: Path, invalidate: str) -> None:
    found = findings(tmp_path, f"changed: [title]\ninvalidate: {{{invalidate}}}")

    assert [each.fix for each in found if each.code == "changed-omits-column"] == ["changed: [title, slug]"]


def test_a_column_that_a_lookup_is_asked_with_must_be_looked_at(tmp_path: Path) -> None:
    rule = "changed: [title]\nlookup: {a: {sql: 'SELECT a.slug FROM authors a WHERE a.id = {author_id}'}}\n"
    found = only(tmp_path, rule + "coarse: {tags: [x]}\ninvalidate: {keys: ['author:{a.slug}'], tags: ['post:{id}']}")

    assert found.message == "`changed:` leaves out author_id, though what is dropped is named by it"
    assert found.fix == "changed: [title, author_id]"


def test_a_column_that_the_condition_asks_for_must_be_looked_at(tmp_path: Path) -> None:
    found = only(tmp_path, "changed: [title]\nwhen: status = 'published'\ninvalidate: {keys: ['post:{id}']}")

    assert shown(found) == (5, 5, 7, "warning", "changed-omits-column")
    assert found.message == "`changed:` leaves out status, though `when:` asks for it"
    assert found.why == (
        "an UPDATE of status alone would not fire the rule: a row that begins or ceases to fulfil the condition would"
        " stay cached as it was"
    )
    assert found.fix == "changed: [title, status]"


def test_a_column_of_the_prefix_is_only_hinted_at(tmp_path: Path) -> None:
    found = only(tmp_path, "changed: [title]\nprefix: 't{tenant_id}:'\ninvalidate: {keys: ['post:{id}']}")

    assert (found.code, found.severity) == ("changed-omits-column", "info")
    assert found.message == "`changed:` leaves out tenant_id, though the prefix holds it"


def test_the_fix_is_yaml_whatever_the_names_are(tmp_path: Path) -> None:
    found = only(tmp_path, "changed: [title]\ninvalidate: {keys: ['post:{\"it''s a: b\"}']}")

    assert found.fix == "changed: [title, 'it''s a: b']"


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        (
            "posts",
            "changed: [title]\ninvalidate: {keys: ['post:{id}', 'post:{post_id}', 'post:{postId}', 'post:{uuid}']}",
        ),
        ("categories", "changed: [title]\ninvalidate: {keys: ['category:{category_id}']}"),
        ("addresses", "changed: [city]\ninvalidate: {keys: ['address:{address_id}']}"),
        ("posts", "changed: [title, slug]\ninvalidate: {keys: ['post:{slug}']}"),
        ("posts", "changed: [title]\ninvalidate: {keys: ['post:{new.slug}', 'post:{id}']}"),
        ("posts", "changed: [title]\nevents: [insert]\ninvalidate: {keys: ['post:{slug}']}"),
        ("posts", "changed: [title, status]\nwhen: status = 'published'\ninvalidate: {keys: ['post:{id}']}"),
        ("posts", "changed: [title]\ninvalidate: {keys: ['post:{id}']}\ncoarse: {keys: ['post:*']}"),
        ("posts", "invalidate: {keys: ['post:{slug}']}"),
    ],
)
def test_a_list_of_changed_columns_that_is_complete_is_right(tmp_path: Path, table: str, rule: str) -> None:
    head = HEAD.replace("posts", table)

    assert [each for each in findings(tmp_path, rule, head) if each.code == "changed-omits-column"] == []


def test_that_inserts_and_deletes_always_count_is_told_where_they_are_listed(tmp_path: Path) -> None:
    found = only(tmp_path, "events: [update, delete]\nchanged: [title]\ninvalidate: {keys: ['post:{id}']}")

    assert shown(found) == (6, 5, 7, "info", "changed-and-delete")
    assert found.message == "`changed:` does not narrow delete: they always count"
    for events in ("", "events: [update]\n", "events: [update, truncate]\n"):
        rule = f"{events}changed: [title]\ncoarse: {{tags: [posts], keys: []}}\ninvalidate: {{keys: ['post:{{id}}']}}"
        assert codes(tmp_path, rule) == []


# -- words in conditions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "column", "width", "text"),
    [
        ("status = published", 20, 9, "published"),
        ("'status = \"In Progress\"'", 21, 13, "In Progress"),
        ("title != 'x' and new.status == published", 42, 9, "published"),
        ("country = no", 21, 2, "no"),
    ],
)
def test_a_text_without_quotes_is_hinted_at(tmp_path: Path, when: str, column: int, width: int, text: str) -> None:
    rule = f"when: {when}\ninvalidate: {{keys: ['post:{{id}}']}}"
    [hint] = [each for each in findings(tmp_path, rule) if each.code == "condition-bare-word"]

    assert shown(hint) == (5, column, width, "info", "condition-bare-word")
    assert hint.message == f"{text} is the name of a column here, no text"
    assert hint.help == f"if the text is meant, write '{text}'"


@pytest.mark.parametrize(
    ("when", "tags"),
    [
        ("status = 'published'", "[x]"),
        ("updated_at > created_at", "[x]"),
        ("old.price != price", "[x]"),
        ("old.price != new.list_price", "[x]"),
        ("price = list_price", "['list:{list_price}']"),
        ("price = list_price and list_price > 3", "[x]"),
        ("is_visible = true", "[x]"),
    ],
)
def test_two_columns_that_can_be_told_to_be_columns_are_right(tmp_path: Path, when: str, tags: str) -> None:
    found = codes(tmp_path, f"when: {when}\ninvalidate: {{keys: ['post:{{id}}'], tags: {tags}}}")

    assert "condition-bare-word" not in found


# -- coarse forms ----------------------------------------------------------------------------------------------


def test_a_coarse_tag_that_nobody_is_known_to_keep_is_told_beside_keys(tmp_path: Path) -> None:
    found = only(tmp_path, "coarse: {tags: [posts]}\ninvalidate: {keys: ['post:{id}']}")

    assert shown(found) == (5, 21, 5, "warning", "coarse-tag-only")
    assert found.why == "after a TRUNCATE, a bulk change or a gap every other 'post:{id}' would stay stale"


@pytest.mark.parametrize(
    "rule",
    [
        "coarse: {tags: [posts], keys: []}\ninvalidate: {keys: ['post:{id}']}",
        "coarse: {tags: [posts], keys: ['post:*']}\ninvalidate: {keys: ['post:{id}']}",
        "coarse: {tags: [posts]}\ninvalidate: {keys: ['post:{id}'], tags: ['author:{author_id}']}",
        "coarse: {tags: [posts]}\ninvalidate: {cdn: [x], l1: ['post:{id}']}",
        "invalidate: {keys: ['post:{id}']}",
    ],
)
def test_a_coarse_form_without_such_a_doubt_is_not_told(tmp_path: Path, rule: str) -> None:
    assert codes(tmp_path, rule) == []


def test_a_coarse_tag_that_another_rule_of_the_file_drops_is_kept_by_the_application(tmp_path: Path) -> None:
    other = "  - {name: list, table: public.lists, invalidate: {tags: [posts]}}\n"
    head = HEAD.replace("  - name: r", other + "  - name: r")

    assert findings(tmp_path, "coarse: {tags: [posts]}\ninvalidate: {keys: ['post:{id}']}", head) == []
