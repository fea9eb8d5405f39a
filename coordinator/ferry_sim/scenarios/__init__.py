"""Scenarios: what happens to a cluster and what must come of it, as files to be read and to be run."""
