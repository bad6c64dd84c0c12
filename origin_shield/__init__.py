"""The shield: a caching node between edges and origins, that only proven edges may ask."""
