"""What each command does, between the parser and the stages: reads options, calls a stage, tells the user."""
