"""Other styles of API for data, models, optimizers and training loops: a book's."""
