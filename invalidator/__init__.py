"""Keeps caches true to Postgres.

The folder listing is the pipeline:

1. ``sources/``     committed row changes come out of Postgres, in commit order
2. ``rules/``       a changed row becomes the keys, tags and patterns that are stale
3. ``batching/``    many transactions become one batch, without losing a key
4. ``targets/``     the batch is applied: L2 (unlink), then L1 (publish), then L3 (purge)
5. ``checkpoint/``  only what every required target has applied is confirmed to Postgres

``pipeline.py`` says the same as code; ``app.py`` puts the parts together.
"""

__version__ = "0.1.0"
