"""What ``explain`` answers; ``purge`` and ``test`` use parts of it.

change         the change that is asked about, from JSON or from a row of the database
explanation    what each rule makes of it, and why
lookups        who answers the lookups of rules meanwhile
live           what a running daemon made of the last transactions
droppers       which rules can drop a name
"""
