"""The slide-level models and the operations on ragged bags they are built from."""
