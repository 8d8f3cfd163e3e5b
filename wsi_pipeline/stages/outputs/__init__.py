"""What heatmap, compare and report show, collected from the results of other stages."""
