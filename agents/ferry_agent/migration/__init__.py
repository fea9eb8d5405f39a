"""The data plane of live migration: page frames, the source's attempt and the target's receiver."""
