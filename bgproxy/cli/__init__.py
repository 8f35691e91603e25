"""Verbs, one file each; they speak to the admin API only (`run` and `demo` apart)."""
