"""What every estimator is made of: learning as a transaction, parameters, answers from log-odds, state for saving."""
