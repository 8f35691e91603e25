"""The memory and the messages that the two planes share."""
