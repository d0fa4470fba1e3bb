"""Read data from each kind of file or folder."""
