"""The sections of the report, and the HTML page they form."""
