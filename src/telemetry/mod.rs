//! To journald and to people.
