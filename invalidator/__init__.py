"""Keeps caches true to Postgres.

The folder listing is the pipeline:

1. ``sources/``     committed row changes come out of Postgres, in commit order
2. ``rules/``       a changed row becomes the keys, tags and patterns that are stale
3. ``batching/``    many transactions become one batch, without losing a key
4. ``targets/``     the batch is applied: L2 (unlink), then L1 (publish), then L3 (purge)
5. ``checkpoint/``  only what every required target has applied is confirmed to Postgres

``pipeline.py`` says the same as code; ``wiring.py`` makes the parts, ``app.py`` puts them together. Beside it stand

``delivery/``       brings each batch to all targets: the order of the layers, retries, repeats, a journal for CDNs
``continuity/``     notices that changes are missing, by a record beside each cache, and makes it good
``reloading.py``    puts new rules in force between two transactions
``preflight/``      finds what would keep rules from working, before a change arrives and again and again
``telemetry/``      tells how it goes: log, metrics, problems with their fixes
``admin/``          what an operator on this machine may ask a running daemon for

Who comes from outside meets ``cli/`` (one file per verb; ``__main__.py`` is the same), ``demo/`` and
``healthcheck.py``, and writes what ``config/`` and ``rules/`` read: ``yamlfile/`` knows the place of everything,
``codes/`` explains every finding, ``schema/`` is for editors. All of it stands on

``postgres/``, ``net/``    the doors to servers, with ``credentials.py`` read anew for each connection
``ports.py``               what the parts ask of each other; ``registry.py`` finds components by file name
``model.py``, ``errors.py``  the words, and what can go wrong, by who has to act
"""

__version__ = "0.1.0"
