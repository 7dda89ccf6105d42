"""What training costs per target, and what its settings are worth."""
