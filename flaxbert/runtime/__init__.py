"""The machine: devices, hosts, compilation, files, signals. Nothing here knows BERT."""
