"""The gateway: data-path workers, the control process and the engine agent."""
