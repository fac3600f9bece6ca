"""The viewer's server."""
