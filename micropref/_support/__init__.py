"""Files, locks, optional packages, progress, text: what the library needs of the machine; preferences are unknown here."""
