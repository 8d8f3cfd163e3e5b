"""Published networks that find tissue and artefacts, run with weights of the user's own."""
