"""Makes files of the repository from the code; a test of each says when it has to be made again.

reference    ``docs/reference/``: ``settings``, ``cli``, ``findings`` and ``metrics``
rules_page   the tables in ``docs/reference/rules.md``
schemas      the JSON Schemas in ``invalidator/schema/``
"""
