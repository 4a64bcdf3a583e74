"""The documentation: pages, and the scripts that make some of them."""
