"""The pure core: history in, decision out."""
