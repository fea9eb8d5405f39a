"""The file-share witness: a vote without a host, kept in files."""
