"""Groups that a running engine printed: read, compared with what degrees say, and made into a topology."""
