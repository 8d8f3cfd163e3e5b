"""Writers of the formats of other tools, one module each; `export_formats` lists them."""
