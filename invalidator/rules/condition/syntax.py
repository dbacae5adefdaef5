"""Reads the text of a condition; what people write who know SQL or another language gets an answer of its own.

Text, depth and number of comparisons are bounded, so whatever stands there is read, checked and compiled soon.
"""

from __future__ import annotations

import re
from typing import Final, Never, cast

from invalidator.rules.condition.tokens import Token, tokens_of
from invalidator.rules.condition.tree import (
    All,
    AnyOf,
    Changed,
    Column,
    Comparison,
    Condition,
    ConditionError,
    Form,
    Membership,
    Node,
    Not,
    Operator,
    Scope,
    Truth,
    Value,
)

MAX_LENGTH: Final = 4_000
MAX_DEPTH: Final = 40
MAX_TERMS: Final = 100
MAX_DIGITS: Final = 400

GRAMMAR: Final = """\
condition  = conjunction { ("or" | "||") conjunction }
conjunction = term { ("and" | "&&") term }
term       = ("not" | "!") term | "(" condition ")" | comparison
comparison = column                                       a boolean column that is true
           | operand ("=" | "!=" | "<" | "<=" | ">" | ">=") operand
           | column ["not"] "in" "(" value { "," value } ")"
           | column "is" ["not"] "null"
           | "changed" "(" column { "," column } ")"
operand    = column | value                               at least one of the two is a column
column     = [ "new." | "old." ] name                     without either: of each row image there is
name       = letters, digits, "_", "$" as the table spells them, or '"' any characters '"' ('""' for one quote)
value      = "'" text "'" ("''" for one quote) | number | "true" | "false" | "null"

"==" is "=", "<>" is "!=", "[...]" is "(...)". The words of the language may be in capitals; names may not."""
"""The language, for the reference page."""

_PLAIN: Final = re.compile(r"[^\W\d][\w$]*")
_OPERATORS: Final = frozenset({"=", "!=", "<", "<=", ">", ">="})
_MIRRORED: Final[dict[Operator, Operator]] = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NO_PATTERNS: Final = "there are no patterns: compare with '=' or in (...)"
_HABITS: Final = {
    **dict.fromkeys(("like", "ilike", "similar", "contains", "matches", "regexp", "rlike", "=~", "~"), _NO_PATTERNS),
    "between": "write a >= 1 and a <= 9",
    "distinct": "'=' and '!=' treat null as an ordinary value already",
    "any": "write a in (1, 2)",
    "===": "write '=': it compares by the column's type",
    "!~": "there are no patterns: compare with '!=' or not in (...)",
    "::": "no cast is needed: a value is read as the column's type reads it",
    "->": "what is inside of JSON cannot be asked for: keep it in a (generated) column",
    "->>": "what is inside of JSON cannot be asked for: keep it in a (generated) column",
    "&": "write 'and' or '&&'",
    "|": "write 'or' or '||'",
    **dict.fromkeys("{}$", "columns stand without braces, and values are written out: status = 'published'"),
    **dict.fromkeys(":@", "values are written out: status = 'published'"),
    ",": "join two conditions by 'and' or 'or'; a number has no commas",
    "[": "write a dot: new.status",
    "?": "there is no choice between values: use 'and' and 'or'",
    ";": "a condition is one expression: join its parts by 'and' or 'or'",
    "`": "a column's name stands in double quotes if it needs any",
    **dict.fromkeys("\u2018\u2019\u201c\u201d", "a text stands in straight quotes: 'published'"),
    "≠": "write '!='",
    "≤": "write '<='",
    "≥": "write '>='",
    **dict.fromkeys("+-*/%^", "there is no arithmetic: compare a column with a value or with another column"),
}
_BEGINNINGS: Final = "compare a column with a value, as in status = 'published'; a boolean column may also stand alone"


def parse(text: str) -> Condition:
    """Read a condition.

    Raises:
        ConditionError: it cannot be understood; says where and why.
    """
    if len(text) > MAX_LENGTH:
        message = f"the condition has {len(text)} characters; at most {MAX_LENGTH} are read"
        raise ConditionError(message, offset=MAX_LENGTH, help="make several rules of it")
    return Condition(text, _Parser(tokens_of(text)).condition())


class _Parser:
    """Reads the tokens from left to right; ``at`` is the next one."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.terms = 0

    def condition(self) -> Node:
        if self.token.kind == "end":
            self.refuse("the condition is empty", help_text=_BEGINNINGS)
        node = self.either()
        if self.token.kind != "end":
            self.refuse_rest()
        return node

    # ------------------------------------------------------------------------------------------------ terms

    def either(self) -> Node:
        terms = [self.both()]
        while self.takes("or"):
            terms.append(self.both())
        return terms[0] if len(terms) == 1 else AnyOf(tuple(terms))

    def both(self) -> Node:
        terms = [self.term()]
        while self.takes("and"):
            terms.append(self.term())
        return terms[0] if len(terms) == 1 else All(tuple(terms))

    def term(self) -> Node:
        opened = self.token
        if self.takes("not"):
            node: Node = Not(self.deeper(opened).term())
            self.depth -= 1
            return node
        if self.takes("("):
            node = self.deeper(opened).either()
            self.depth -= 1
            if not self.takes(")"):
                self.refuse("expected ')'" if self.token.kind != "end" else "no closing ')'", self.rest_or(opened))
            return node
        return self.comparison()

    def deeper(self, opened: Token) -> _Parser:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            message = f"more than {MAX_DEPTH} parentheses or 'not' in each other"
            raise ConditionError(message, offset=opened.offset, width=opened.width, help="make several rules of it")
        return self

    def comparison(self) -> Node:
        self.terms += 1
        if self.terms > MAX_TERMS:
            help_text = "compare a column with many values by in (...), or make several rules of it"
            self.refuse(f"more than {MAX_TERMS} comparisons", help_text=help_text)
        if self.token.text.lower() == "changed" and self.token.kind == "name" and self.is_next("operator", "("):
            return self.change()
        first = self.operand()
        operator = self.token
        if operator.text in _OPERATORS and operator.kind == "operator":
            self.at += 1
            return self.compared(first, cast("Operator", operator.text), operator)
        if isinstance(first, Value):
            is_choice = self.at > 1 and self.tokens[self.at - 2].text == "or"
            help_text = "name the column again, or write status in ('a', 'b')" if is_choice else _BEGINNINGS
            message = f"{_shown(first)} stands alone"
            raise ConditionError(message, offset=first.offset, width=first.width, help=help_text)
        if self.takes("is"):
            return self.null_test(first)
        is_not = operator.kind == "word" and operator.text == "not" and self.is_next("word", "in")
        if is_not:
            self.at += 1
        if self.token.kind == "word" and self.takes("in"):
            found = Membership(first, self.values())
            return Not(found) if is_not else found
        return Truth(first)

    def compared(self, first: Column | Value, operator: Operator, sign: Token) -> Node:
        found = self.token
        second = self.operand()
        self.check_quoted(found)
        if isinstance(first, Value):
            if isinstance(second, Value):
                self.refuse("two values, and no column", sign, help_text=_BEGINNINGS)
            first, operator, second = second, _MIRRORED[operator], first
        if isinstance(second, Value) and second.form == "null" and operator not in ("=", "!="):
            self.refuse("nothing is less or more than null", sign, help_text=f"write {first.name} is null")
        if self.token.kind == "operator" and self.token.text in _OPERATORS:
            self.refuse("two comparisons in a row", help_text="join them by 'and': a > 1 and a < 9")
        return Comparison(operator, first, second)

    def null_test(self, column: Column) -> Node:
        is_not = self.takes("not")
        token = self.token
        if self.takes("null"):
            return Comparison("!=" if is_not else "=", column, Value("null", "null", token.offset, token.width))
        if token.text in ("true", "false"):
            wanted = column.name if (token.text == "true") != is_not else f"not {column.name}"
            help_text = f"write {wanted}"
        else:
            help_text = _HABITS.get(token.text.lower(), f"write {column.name} is null, or {column.name} = …")
        message = f"'is' asks for null only, found {token.shown}"
        raise self.error(message, help_text=help_text)

    def values(self) -> tuple[Value, ...]:
        opened = self.token
        if not (self.takes("(") or self.takes("[")):
            self.refuse(f"expected '(' after 'in', found {opened.shown}", help_text="write in ('a', 'b')")
        closing = ")" if opened.text == "(" else "]"
        values: list[Value] = []
        while True:
            value = None if self.token.text in (")", "]") and self.token.kind == "operator" else self.operand()
            if value is None:
                self.refuse("the list is empty" if not values else "a value is missing before the bracket")
            if isinstance(value, Column):
                quoted = f"write '{value.name}' for a text" if value.name else None
                message = f"a list holds values, and {_shown(value)} is a column"
                raise ConditionError(message, offset=value.offset, width=value.width, help=quoted)
            values.append(value)
            if self.takes(closing):
                return tuple(values)
            if not self.takes(","):
                message = f"expected ',' or '{closing}', found {self.token.shown}"
                self.refuse(message if self.token.kind != "end" else f"no closing '{closing}'", self.rest_or(opened))

    # --------------------------------------------------------------------------------------------- operands

    def operand(self) -> Column | Value:
        token = self.token
        if token.kind in ("text", "number") or (token.kind == "word" and token.text in ("true", "false", "null")):
            return self.value()
        if token.kind in ("name", "quoted"):
            return self.column()
        if token.text == "-" and self.tokens[self.at + 1].kind == "number":
            return self.value()
        if token.kind == "end":
            message = "something is missing at the end" if self.at else "the condition is empty"
            raise ConditionError(message, offset=token.offset, width=token.width, help=_BEGINNINGS)
        help_text = _HABITS.get(token.text, _BEGINNINGS)
        message = f"expected a column or a value, found {token.shown}"
        raise self.error(message, help_text=help_text)

    def value(self) -> Value:
        token = self.token
        self.at += 1
        text, form = token.text, {"text": "text", "number": "number"}.get(token.kind)
        if form is None and text == "-":
            number = self.token
            self.at += 1
            token = Token("number", "-" + number.text, token.offset, number.offset + number.width - token.offset)
            text, form = token.text, "number"
        if form == "number" and (len(text) > MAX_DIGITS or _exponent(text) > MAX_DIGITS):
            message = f"more than {MAX_DIGITS} digits in a number"
            raise ConditionError(message, offset=token.offset, width=token.width)
        if form is None:
            form = "null" if text == "null" else "boolean"
        return Value(text, cast("Form", form), token.offset, token.width)

    def column(self) -> Column:
        first = self.token
        self.at += 1
        lowered = first.text.lower()
        if first.kind == "name" and lowered in ("new", "old"):
            if self.takes("."):
                return self.scoped(first, cast("Scope", lowered))
            if self.token.text == "[" and self.token.kind == "operator":
                self.refuse(f"'{lowered}' is no list", help_text=f"write a dot: {lowered}.status")
        elif self.token.text == "." and self.token.kind == "operator":
            is_fact = lowered == "meta"
            help_text = "write the operations in events:" if is_fact else "write new., old., or the column alone"
            message = f"'{first.text}.' is neither 'new.' nor 'old.'"
            raise ConditionError(message, offset=first.offset, width=first.width + 1, help=help_text)
        if first.kind == "name" and self.token.text == "(" and self.token.kind == "operator":
            return self.call(first)
        if not first.text:
            self.refuse("empty column name", first, help_text="an empty text is written ''")
        return Column("row", first.text, first.offset, first.width)

    def scoped(self, first: Token, scope: Scope) -> Column:
        token = self.token
        if token.kind not in ("name", "quoted", "word") or not (token.text[:1].isalpha() or token.kind != "word"):
            what = "nothing" if token.kind == "end" else token.shown
            self.refuse(f"expected a column after '{scope}.', found {what}")
        if not token.text:
            self.refuse("empty column name")
        self.at += 1
        return Column(scope, token.text, first.offset, token.offset + token.width - first.offset)

    def check_quoted(self, token: Token) -> None:
        """In most languages double quotes hold a text; here, as in SQL, a name."""
        if token.kind == "quoted" and _PLAIN.fullmatch(token.text):
            help_text = f"for the text write '{token.text}'; for the column write {token.text} without quotes"
            self.refuse("double quotes hold the name of a column", token, help_text=help_text)

    def call(self, first: Token) -> Never:
        message = f"there is no function '{first.text}'"
        help_text = "the only function is changed(column, ...)"
        if first.text.lower() == "changed":
            message, help_text = "changed(...) is true or false by itself", "join it by 'and' or 'or'"
        raise ConditionError(message, offset=first.offset, width=first.width, help=help_text)

    def change(self) -> Changed:
        """``changed(a, b)``, of which the first parenthesis is the next token but one."""
        opened = self.token
        self.at += 2
        columns: list[Column] = []
        while True:
            token = self.token
            if token.kind not in ("name", "quoted"):
                what = "the name of a column" if token.kind == "end" else f"the name of a column, found {token.shown}"
                self.refuse(f"expected {what}", help_text="write changed(status), or changed(status, title)")
            self.at += 1
            if self.token.text == "." and token.text.lower() in ("new", "old"):
                self.refuse("changed(...) compares both images", help_text="write the name alone: changed(status)")
            if not token.text:
                self.at -= 1
                self.refuse("empty column name")
            columns.append(Column("new", token.text, token.offset, token.width))
            if self.takes(")"):
                return Changed(tuple(columns))
            if not self.takes(","):
                self.refuse(f"expected ',' or ')', found {self.token.shown}", self.rest_or(opened))

    # ---------------------------------------------------------------------------------------------- helpers

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def is_next(self, kind: str, text: str) -> bool:
        token = self.tokens[self.at + 1]
        return token.kind == kind and token.text == text

    def takes(self, text: str) -> bool:
        token = self.token
        if token.text != text or token.kind not in ("word", "operator"):
            return False
        self.at += 1
        return True

    def rest_or(self, opened: Token) -> Token:
        """The next token, or the bracket that nothing closes."""
        return opened if self.token.kind == "end" else self.token

    def refuse_rest(self) -> Never:
        token = self.token
        before = self.tokens[self.at - 1]
        if token.text == ")":
            self.refuse("')' without '('")
        help_text = _HABITS.get(token.text.lower()) if token.kind in ("name", "operator", "other") else None
        if help_text is None and token.kind in ("name", "quoted", "text", "number", "word"):
            help_text = "join two conditions by 'and' or 'or'"
            if before.kind in ("name", "quoted") and token.kind in ("text", "number"):
                help_text = f"put an operator between: {before.text} = …"
        self.refuse(f"unexpected {token.shown}", help_text=help_text)

    def refuse(self, message: str, at: Token | None = None, *, help_text: str | None = None) -> Never:
        raise self.error(message, at, help_text=help_text)

    def error(self, message: str, at: Token | None = None, *, help_text: str | None = None) -> ConditionError:
        token = at or self.token
        return ConditionError(message, offset=token.offset, width=token.width, help=help_text)


def _exponent(number: str) -> int:
    _, _, exponent = number.lower().partition("e")
    return abs(int(exponent)) if exponent and len(exponent) < 10 else len(exponent) and 10**6


def _shown(operand: Column | Value) -> str:
    if isinstance(operand, Column):
        return f"'{operand.name}'"
    return f"the text '{operand.text}'" if operand.form == "text" else operand.text
