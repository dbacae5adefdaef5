"""What ``setup`` and ``teardown`` do with a database.

source      the source that it is for, as settings and options say
plan        looks at the database, works out what is needed, and runs it
outcome     what came of that
script      the outcome as SQL for psql, or as JSON
removal     what ``teardown`` takes away, ``leftovers`` outside of the database among it
"""
