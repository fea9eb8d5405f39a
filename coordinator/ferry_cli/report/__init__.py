"""``ferry report``: runs as one HTML page with charts."""
