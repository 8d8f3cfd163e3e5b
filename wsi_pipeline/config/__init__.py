"""The user's settings as frozen dataclasses: specs (they change results), execution (they do not), fields, units."""
