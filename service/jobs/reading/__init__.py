"""Bodies of /v1/batch, each read as a stream into a spool: multipart, zip, tar, tar.gz, NDJSON."""
