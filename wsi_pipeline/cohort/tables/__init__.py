"""Users' tables, read cell by cell: columns, missing values, patients, survival."""
