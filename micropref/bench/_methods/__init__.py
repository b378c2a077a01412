"""How every kind of method learns from a task and predicts its test rows at each budget."""
