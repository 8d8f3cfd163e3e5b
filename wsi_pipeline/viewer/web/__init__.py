"""The viewer over HTTP: access control, endpoints, and the server process."""
