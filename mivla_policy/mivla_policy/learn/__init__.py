"""Learning: demonstrations in, a checkpoint out, and the controls of its evaluation."""
