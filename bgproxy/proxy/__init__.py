"""The data plane: what a worker process does with connections and requests."""
