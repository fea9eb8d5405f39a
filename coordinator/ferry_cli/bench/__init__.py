"""`ferry bench migrate`: our own live migration beside other ways of moving the same memory.

`contents` makes the memory that everybody moves, `peers` says what a peer is, `catalogue` names them all.
"""
