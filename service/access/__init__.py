"""Who may ask for what, and how often: API keys, their file, scopes and rates. Knows no protocol."""
