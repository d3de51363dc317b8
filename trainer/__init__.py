"""What data modules, Lightning modules and callbacks ask of the trainer that runs them, and its checkpoints."""
