"""Runtimes: what runs an ONNX backbone on this machine, and what an ONNX file may contain."""
