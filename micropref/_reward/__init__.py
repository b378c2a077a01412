"""The parts of `micropref.reward.PreferenceModel`: one idea per module."""
