"""Files, locks, optional packages, progress, text: what the library needs of the machine, whatever it is used for."""
