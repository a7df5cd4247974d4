"""From pixels to a ranked list of photos: regions, sketches, embeddings, Eq. (3), galleries."""
