"""How fast and how small: decoding, tries, loading, metrics, quantized weights."""
