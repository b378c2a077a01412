"""Every rival method on the same X, written from its paper."""
