"""What heatmap, compare and report show, gathered from the results of other stages."""
