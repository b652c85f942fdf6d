//! PostgreSQL's wire protocol, as far as Backstay needs it.
