"""What each command does, between the parser and the stages: read the options, call a stage, print what came of it."""
