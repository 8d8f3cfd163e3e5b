"""User interface shared by all commands: options, console, log file, YAML."""
