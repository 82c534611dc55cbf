"""`python -m profiler`, and the entry point of `profiler`: loads the command line so that Ctrl-C is quiet even then."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from profiler.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
