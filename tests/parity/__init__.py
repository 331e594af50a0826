"""What the libraries that people use compute on the same inputs, and how our reference implementations compare."""
