"""The report's sections and the HTML page they make."""
