"""Sans-I/O HTTP/1.1: bytes to heads and framing and back (RFC 9110, RFC 9112). Knows no socket and no asyncio."""
