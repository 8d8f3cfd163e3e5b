"""Pure functions on pixel arrays that know no slide."""
