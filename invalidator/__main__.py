"""``python -m invalidator`` is the command line."""

from invalidator.cli import main

main()
