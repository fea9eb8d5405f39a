"""Scenarios as the ``ferry`` command runs them: on virtual time, or live in a lab of its own."""
