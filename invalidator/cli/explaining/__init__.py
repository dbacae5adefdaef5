"""What ``explain`` answers; ``purge`` and ``test`` use parts of it.

change         the change that is asked about, from JSON or from a row of the database
explanation    what each rule makes of it, and why
lookups        who answers its lookups: the command line, or the ``database``
live           what a running daemon made of the last transactions
droppers       which rules can drop a name
"""
