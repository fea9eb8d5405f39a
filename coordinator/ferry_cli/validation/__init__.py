"""``ferry cluster validate``: facts are gathered from live processes, judged by named tests, and reported."""
