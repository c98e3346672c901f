"""Where the bytes and facts of a dataset live."""
