"""What the daemon says about itself: events (log line + count), metrics, logs, probes."""
