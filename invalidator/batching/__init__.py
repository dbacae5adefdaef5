"""3  Many invalidations become one, without losing a name. Decides; does no I/O."""
