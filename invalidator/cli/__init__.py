"""The command line: one file per verb."""


def main() -> None:
    """Run the command line."""
