"""A rank without a GPU: windows, paths and a caching allocator over shared memory."""
