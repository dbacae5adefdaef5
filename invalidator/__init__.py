"""Keeps caches true to Postgres.

The folder listing is the pipeline:

1. ``sources/``     committed row changes come out of Postgres, in commit order
2. ``rules/``       a changed row becomes the keys, tags and patterns that are stale
3. ``batching/``    many transactions become one batch, without losing a key
4. ``targets/``     the batch is applied: L2 (unlink), then L1 (publish), then L3 (purge)
5. ``checkpoint/``  only what every required target has applied is confirmed to Postgres

``pipeline.py`` says the same as code; ``wiring.py`` makes the parts, ``app.py`` puts them together. Beside it stand

``continuity.py``   notices that changes are missing, by a record beside each cache (``recorder.py``)
``debts.py``        remembers the targets without which positions were confirmed
``unstreamed.py``   notices what happens to tables without a word in the stream
``repairs.py``      makes good what they found: coarse forms, one rule at a time
``reloading.py``    puts new rules in force between two transactions
``credentials.py``  reads passwords anew for each connection
``admin/``          what an operator on this machine may ask a running daemon for
"""

__version__ = "0.1.0"
