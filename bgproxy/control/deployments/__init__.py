"""Deployments: the runner of `bgproxy.model.deployment`'s machine, and one file for each of its stages."""
