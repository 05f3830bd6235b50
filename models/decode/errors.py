"""Why an image was refused. Every fault here is the caller's: nothing but an image can cause one.

ImageError
├─ UnsupportedFormat   not a format, or a variant of one, that is read here
├─ BrokenImage         of an accepted format, and damaged, truncated or contradicting itself
├─ TooManyBytes        the file is larger than the limit
└─ TooManyPixels       its header announces more pixels than the limit, or than memory holds
"""


class ImageError(Exception):
    """The image cannot be used; the message is fit for a client: no path, no library's words."""


class UnsupportedFormat(ImageError):
    """Not a format, or a variant of a format, that is read here."""


class BrokenImage(ImageError):
    """Of an accepted format, but damaged, truncated or contradicting itself."""


class TooManyBytes(ImageError):
    """The file is larger than the limit."""


class TooManyPixels(ImageError):
    """The header announces more pixels than the limit; no pixel was decoded."""
