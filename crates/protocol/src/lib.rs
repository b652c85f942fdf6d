//! Bytes between Backstay's own processes, versioned.
