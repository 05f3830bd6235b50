"""HTTP/2 as a server speaks it (RFC 9113), without anything of what is said over it."""
