"""Supervisor, sockets and signals: the one place that joins the two planes."""
