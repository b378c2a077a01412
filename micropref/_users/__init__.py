"""What is known of a user: evidence, history, neighbours."""
