"""A `PreferenceModel` inside other people's trainers: one module for each, which needs nothing of the trainer."""

from micropref.integrations import openrlhf, trl, verl

__all__ = ["openrlhf", "trl", "verl"]
