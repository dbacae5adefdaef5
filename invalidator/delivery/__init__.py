"""One batch to all targets: L2, then L1, then L3; retried, repeated, and never lost by a required target.

    lane       one target: its inbox, its retries, and the number up to which it has applied everything
    waiting    how long to wait, and for whichever comes first
    delivery   all lanes: the order of the layers, repeats, and when a batch is finished
    journaled  a CDN target whose work waits in a file, so that its outage holds nothing (optional); ``journal`` is that
               file in the event loop, ``journal_file`` what it holds, ``sqlite_file`` how it survives

The order of the layers holds for each batch, and yet no target waits for another one of its own layer.
"""

from __future__ import annotations

from invalidator.delivery.delivery import Delivery, Settings

__all__ = ["Delivery", "Settings"]
