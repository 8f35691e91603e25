"""The control plane: who is live, health, drains, discovery, the store."""
