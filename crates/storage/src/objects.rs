//! The embedded object store: segments as files below the data directory, fsynced before they count.
