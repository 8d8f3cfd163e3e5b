"""The tables a store holds: patches, features, classes, masks, labels."""
