"""Pictures of slides: overlays, heatmaps, class maps, sheets of example patches."""
