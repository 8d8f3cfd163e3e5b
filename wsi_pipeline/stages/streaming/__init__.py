"""Stream the patches of all slides through a network."""
