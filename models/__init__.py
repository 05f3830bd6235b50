"""What a network and its files are, and how one is run on an image.

Knows no server and no trainer: service/ and training/ import models/, never the other way round.
"""
