"""Any timm network as an encoder: its own input, its own tokens."""
