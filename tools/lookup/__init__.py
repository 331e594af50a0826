"""What public databases say about a paper: one module a source, `http` the way to them, `agree` what is made of their answers."""
