"""Both pure cores on virtual time: a cluster in one thread, with faults from one seed, and its checkers."""
