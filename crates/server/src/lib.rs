//! The process: configuration, assembly, command line, HTTP. No algorithms, it only assembles.
