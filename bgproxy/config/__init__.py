"""The schema of the configuration, its loading, and messages about mistakes."""
