"""Trained models for other programs: as ONNX, and described by a model card."""
