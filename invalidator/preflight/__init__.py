"""What can be known before a change arrives: the rules and settings held against database, targets and schema files.

Every finding is a ``yamlfile.Diagnostic``: code, place, why, and a fix that can be run as it stands.
"""
