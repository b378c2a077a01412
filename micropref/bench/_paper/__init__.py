"""The tables of MiCRo's paper from one call: which rows they have, what was published, and what they cost."""
