"""The project's own tools: `python -m tools --help`."""
