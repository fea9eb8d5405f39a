"""The ``ferry`` command, the one-machine lab, the demo and the bench."""
