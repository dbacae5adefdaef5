"""The Postgres protocol and catalog, shared by sources and set-up. Driver errors become ours in here."""
