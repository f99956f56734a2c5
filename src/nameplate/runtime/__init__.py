"""Runtimes: what computes an ONNX backbone on this machine, and what may be in an ONNX file."""
