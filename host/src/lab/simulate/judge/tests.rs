//! Each rule can be broken: the judge is told of events that must not be.
