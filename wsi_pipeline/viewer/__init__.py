"""The viewer in the browser: slides, layers, marks and the jobs that a mark leads to, served from a run folder."""
