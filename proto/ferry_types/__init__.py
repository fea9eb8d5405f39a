"""Pure values shared by every process: ids, names, units, limits, eras; imports nothing of ours."""
