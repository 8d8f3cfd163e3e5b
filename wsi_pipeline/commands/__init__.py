"""The commands, between the parser and the stages: read the options, call a stage, print the results."""
