"""Commands that import files of other tools and export files for them."""
