//! A fake model over real memory, and the naive account of what must come out of it.

pub(crate) mod naive;
pub(crate) mod world;
