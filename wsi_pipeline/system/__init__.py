"""What the operating system is asked for: whole files, processes, locks, signals, devices."""
