"""The `mp` command: the only place that touches the terminal, environment and clock."""
