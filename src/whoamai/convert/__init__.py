"""Other programs' files in, files for other programs out: one module a conversion."""
