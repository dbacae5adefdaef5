"""What ``invalidator demo`` runs: real servers from wheels, a shop, an edge, and the daemon between them."""
