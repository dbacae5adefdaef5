"""What ``check`` looks at, and how it tells what it found.

rule_files   rules in files and in Markdown pages, with their tests
servers      the database and the targets, or a schema file in place of both
report       all findings together, as text, JSON or GitHub annotations; ``sarif`` for code scanning
"""
