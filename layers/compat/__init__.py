"""Other styles of API over the same kernels: a book's and a course's."""
