//! Sessions against a real node.
