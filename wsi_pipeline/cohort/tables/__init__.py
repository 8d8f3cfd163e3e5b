"""Tables that people have, read cell by cell: columns, words for no value, patients, survival."""
