//! A walsender without PostgreSQL: what it has, what it says, and the faults that can befall it.

pub mod cluster;
pub mod config;
pub mod units;
