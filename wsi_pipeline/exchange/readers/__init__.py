"""Reading files of other tools: what they hold, whose they are. One reader for each layout, found by the bytes."""
