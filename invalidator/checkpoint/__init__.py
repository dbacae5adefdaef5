"""5  Which position may be confirmed. Decides; does no I/O."""
