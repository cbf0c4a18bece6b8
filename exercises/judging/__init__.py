"""What the judge of the exercises is made of: nothing that a reader has to open."""
