//! The process: configuration, assembly, command line, HTTP. No algorithms, it only assembles.

// What the operator says: flags and one TOML file, validated.
pub mod settings;
