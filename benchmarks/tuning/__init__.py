"""PathoTune beside its rivals on real histology: `python -m benchmarks.tuning --help`."""
