"""`bgproxy demo`: a small shop in two versions, the proxy before it, some traffic, and what to try."""
