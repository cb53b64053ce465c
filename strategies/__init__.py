"""The federation's rules: the one format that crosses the border, and how updates become one adapter."""
