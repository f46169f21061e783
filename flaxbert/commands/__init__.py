"""Commands: the only code with flags, tables, printed output and exit codes."""
