"""The tests. A package, so that a folder of the same name in site-packages cannot stand in its place."""
