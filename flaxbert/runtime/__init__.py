"""The machine: devices, hosts, compilation, files and signals.

Nothing here depends on the model, the task, the data or the configuration.
"""
