"""What all tests share: marks by folder, and how Hypothesis runs."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
MARKED_FOLDERS = ("bench", "chaos", "integration", "reference")

# No deadlines: a busy machine is not a failure. In CI the examples are the same every time, so that a
# change is not refused for what another one did; elsewhere they are new ones, so that bugs are found.
settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by the folder that they are in, before ``-m`` selects among them."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)
