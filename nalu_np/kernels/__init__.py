"""Training steps fused by hand for the hot cases, each beside a test that holds it to the readable tier."""
