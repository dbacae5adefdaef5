"""What the daemon says about itself: events (log line + count), metrics, logs, probes.

    events        what happens, in one call each: a log line and the figures change together
    state         the figures, as plain values; ``ages`` are worked out when somebody looks
    problems/     what is wrong and what to type; ``watch`` looks for it once a second
    health        whether this process may be counted on
    happenings    what happened last, for whoever watches
Out of these come
    logs          lines on standard output: without secrets (``redaction``); no reader can stop them (``log_output``)
    metrics       of the families in ``catalogue``, with the ``label_values`` that are known before
    status        the answer of /status
    server        the public listener, at the address that ``listen`` reads
"""
