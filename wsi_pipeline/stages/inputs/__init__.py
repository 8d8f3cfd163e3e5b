"""What a stage starts from: bags of features, the adapter that is meant."""
