"""The viewer over HTTP: who may ask, what is answered, and the process that answers."""
