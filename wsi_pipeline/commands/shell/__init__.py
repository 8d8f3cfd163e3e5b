"""What every command needs to talk to its user: options, console, log file, YAML."""
