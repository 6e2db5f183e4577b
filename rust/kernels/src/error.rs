//! The one error type of this crate.

/// Why a kernel refused its arguments; nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// A buffer is shorter than its shape needs.
    #[error(
        "{name} holds {given} elements, needed are {needed}; pass a tensor of the stated shape"
    )]
    Size {
        /// The argument.
        name: &'static str,
        /// Elements in the buffer.
        given: usize,
        /// Elements that the shape needs.
        needed: usize,
    },
    /// A number outside its range.
    #[error("{name} is {given}, allowed is {allowed}")]
    Value {
        /// The argument.
        name: &'static str,
        /// What was passed.
        given: i64,
        /// The allowed values, in words.
        allowed: &'static str,
    },
}

/// `Err` unless a buffer of `given` elements holds `needed`.
pub(crate) fn check_size(
    name: &'static str,
    given: usize,
    needed: usize,
) -> Result<(), KernelError> {
    if given < needed {
        return Err(KernelError::Size {
            name,
            given,
            needed,
        });
    }
    Ok(())
}

/// `Err` unless `ok`.
pub(crate) fn check_value(
    name: &'static str,
    given: i64,
    ok: bool,
    allowed: &'static str,
) -> Result<(), KernelError> {
    if ok {
        Ok(())
    } else {
        Err(KernelError::Value {
            name,
            given,
            allowed,
        })
    }
}
