"""What is run beside LightningCLI: one file a command."""
