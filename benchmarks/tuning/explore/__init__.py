"""The search for PathoTune's design: candidate models, their training, and successive halving over design seeds."""
