"""What can be known before a change arrives: the rules and settings held against database, targets and schema files.

    facts         everything that is looked at, as one value; from a database or from a schema file
    needs         what the rules need of a database, as set-up and the checks ask for it
    places        where in the rule files each thing stands, down to the column inside a template
    examine       the checks, one after the other: facts + rules (a ``case``) → findings
        columns       tables and columns that are there, and what their texts depend on
        identity      old values that Postgres does not send
        publication   what the publication leaves out
        outbox        whether every change that a rule wants is written down
        server        server, slot and role
        standbys      whether the slot survives a failover
        lookups       SQL of the rules, by EXPLAIN
        row_security  policies that hide rows from it
    targets       asks each target whether it would take our calls
    online        all of it once, for check --online
    snapshot      facts ↔ schema file
    watch         the same checks in the running daemon, again and again

Every finding holds a ``yamlfile.Diagnostic``: code, place, why, and a fix that can be run as it stands.
"""
