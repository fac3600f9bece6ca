"""From a field to a volume that a browser can march."""
