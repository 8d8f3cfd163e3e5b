"""Commands that bring in what other tools wrote, and write what they read."""
