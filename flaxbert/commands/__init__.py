"""Commands: the only code with flags, tables and exit codes."""
