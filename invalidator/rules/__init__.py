"""2  A changed row becomes the names of what is stale. Decides; does no I/O."""
