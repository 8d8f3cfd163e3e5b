"""Published slide encoders: their facts, their weights, and their networks in plain torch."""
