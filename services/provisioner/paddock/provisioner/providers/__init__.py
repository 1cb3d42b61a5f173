"""Where sandboxes come from: one file a provider, and what those of this host share."""
