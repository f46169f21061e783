"""Exports for servers: a model as ONNX or StableHLO, its decisions, and a certificate of both.

`runtime.py` reads such an export. It needs neither JAX nor transformers.
"""
