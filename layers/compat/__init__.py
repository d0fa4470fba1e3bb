"""Other APIs over the same kernels: a book's, a course's, and channels-last layers."""
