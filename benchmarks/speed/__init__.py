"""Benchmarks of speed and size: decoding, tries, loading, metrics, quantized weights."""
