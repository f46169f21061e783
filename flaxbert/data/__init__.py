"""Data: from files and hub data sets to batches of static shapes. Knows no task and no device."""
