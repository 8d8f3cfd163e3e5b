"""Parts of labelled patches that divide no group."""
