"""Recipe to plan: how deep to read each expert block under a byte budget."""
