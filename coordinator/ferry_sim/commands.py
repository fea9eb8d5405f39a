"""What the commands of this package share: their options' types, and how they speak."""

import argparse
import os
import sys


def positive(text: str) -> int:
    """A whole number above 0. Raises ValueError, which argparse words."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """The option that says how many processes share the work."""
    parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, help="default: one a processor")


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
