"""Pictures of slides: overlays, heat maps, class maps, example sheets."""
