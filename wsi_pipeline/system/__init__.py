"""Services of the operating system: atomic files, processes, locks, signals, devices."""
