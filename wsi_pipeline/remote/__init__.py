"""Slides at an address (S3, Google Cloud Storage, HTTP): ranged reads, retries, a bounded cache on this machine."""
