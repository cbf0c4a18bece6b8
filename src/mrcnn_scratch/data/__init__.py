"""What the network looks at: toy scenes of shapes, and labelled images of your own."""
