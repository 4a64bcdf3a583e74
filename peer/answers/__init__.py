"""Everything that answers prompts."""
