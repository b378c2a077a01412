"""Arrays of NumPy and torch, and how large ones are read; nothing here knows of preferences."""
