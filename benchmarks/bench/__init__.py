"""The benchmark suite: what a request, a switch and an idle connection cost, for bgproxy and its peers."""
