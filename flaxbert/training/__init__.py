"""Training: plan, loop, step, state and optimizer."""
