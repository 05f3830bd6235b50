"""Hostile and odd image files: made here for every test run, and read from public suites by hand.

`make hostile FILES=FOLDER` decodes every file below FOLDER in a process of its own; `URL=...` posts them
to a running service instead. Suites worth a run: PngSuite, Pillow's Tests/images, the test files of the
image-rs crates and of libavif, the fuzzers' corpora of libtiff and libwebp.
"""
