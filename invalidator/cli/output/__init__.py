"""What some verbs print, where that is long.

test_results   of ``test``: text, JSON or JUnit XML
tail_lines     of ``tail``: one record of a daemon as lines
"""
