"""What the user asks for, as frozen facts: units, fields, specs (they change results) and execution (they do not)."""
