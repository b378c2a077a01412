"""Pure functions that fits are made of: gates, objectives, solvers, scales, predictions. They know no estimator."""
