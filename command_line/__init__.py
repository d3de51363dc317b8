"""LightningCLI as ``untrigger`` has it, and what it checks before anything is built."""
