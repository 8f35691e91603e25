"""The groups of figures: cost, switch, scale, memory, mirror."""
