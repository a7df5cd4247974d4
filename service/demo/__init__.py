"""The demonstration: invented people, the strokes that draw them, and the picture of a drawing finding its face."""
