"""The patch encoders that can be chosen by name: their facts, and how they are built."""
