//! Checks shared by kernels that walk packed sequences.

use crate::error::{KernelError, check_size, check_value};

/// Packed sequences and the state slot of each.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    /// `num_seqs + 1` offsets into the packed tokens, from 0, ascending.
    pub cu_seqlens: &'a [i32],
    /// The slot of each sequence, no slot twice.
    pub state_slots: &'a [i64],
    /// Whether the slot holds a state already; 0: the sequence starts from zero.
    pub has_initial_state: &'a [u8],
}

impl Sequences<'_> {
    /// Number of sequences.
    pub(crate) fn len(&self) -> usize {
        self.state_slots.len()
    }

    /// First and one-past-last token of sequence `index`.
    pub(crate) fn tokens(&self, index: usize) -> (usize, usize) {
        (
            self.cu_seqlens[index] as usize,
            self.cu_seqlens[index + 1] as usize,
        )
    }

    pub(crate) fn slot(&self, index: usize) -> usize {
        self.state_slots[index] as usize
    }

    pub(crate) fn is_started(&self, index: usize) -> bool {
        self.has_initial_state[index] != 0
    }

    /// `Err` unless offsets cover `num_tokens` tokens and slots are distinct and inside the cache.
    pub(crate) fn check(&self, num_tokens: usize, num_slots: usize) -> Result<(), KernelError> {
        check_cu_seqlens(self.cu_seqlens, self.len(), num_tokens)?;
        check_size(
            "has_initial_state",
            self.has_initial_state.len(),
            self.len(),
        )?;
        let mut taken = vec![false; num_slots];
        for &slot in self.state_slots {
            let free = usize::try_from(slot)
                .ok()
                .and_then(|slot| taken.get_mut(slot))
                .is_some_and(|taken| !std::mem::replace(taken, true));
            check_value(
                "state_slots",
                slot,
                free,
                "a slot of the cache, each at most once",
            )?;
        }
        Ok(())
    }
}

/// `Err` unless `cu_seqlens` has `num_seqs + 1` ascending offsets from 0 to `num_tokens`.
pub(crate) fn check_cu_seqlens(
    cu_seqlens: &[i32],
    num_seqs: usize,
    num_tokens: usize,
) -> Result<(), KernelError> {
    let given = cu_seqlens.len();
    if given != num_seqs + 1 {
        return Err(KernelError::Size {
            name: "cu_seqlens",
            given,
            needed: num_seqs + 1,
        });
    }
    let first = i64::from(cu_seqlens[0]);
    check_value("cu_seqlens[0]", first, first == 0, "0")?;
    for pair in cu_seqlens.windows(2) {
        let ok = pair[0] <= pair[1];
        check_value("cu_seqlens", i64::from(pair[1]), ok, "ascending offsets")?;
    }
    let last = i64::from(cu_seqlens[num_seqs]);
    check_value(
        "cu_seqlens[-1]",
        last,
        last == num_tokens as i64,
        "the number of tokens",
    )
}
