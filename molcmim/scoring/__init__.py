"""Files in, files out: molecules of any number into embeddings, in shards that survive interruption."""
