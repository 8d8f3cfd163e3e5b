"""The browser viewer: slides, layers, marks, and the jobs that use the marks, served from a run folder."""
