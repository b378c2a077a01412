"""What a row means: the only place where X, y, weights and ids are read."""
