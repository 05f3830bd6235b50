"""The doors: each protocol translates its wire format into Classifier calls and back, nothing more."""
