"""The only doors to the network: driver errors become ours in here."""
