"""The same draws on both substrates, compared fact by fact."""
