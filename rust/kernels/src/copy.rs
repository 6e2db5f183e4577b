//! Whole rows moved inside or into a cache: keys and values, KV blocks, SSM slots.

use crate::error::{KernelError, check_value};
use crate::pool::{self, SharedMut};
use crate::rows::Rows;

/// Store row t of `x` as row `slot_mapping[t]` of `cache`.
///
/// # Errors
/// [`KernelError`] when a slot lies outside the cache; nothing is written then.
pub fn write_rows<T: Copy>(
    x: &Rows<'_, T>,
    slot_mapping: &[i64],
    cache: &mut [T],
) -> Result<(), KernelError> {
    let width = x.width();
    let fits = slot_mapping.len() == x.len();
    check_value(
        "slot_mapping",
        slot_mapping.len() as i64,
        fits,
        "one slot a token",
    )?;
    let num_slots = cache.len().checked_div(width).unwrap_or(0) as i64;
    for &slot in slot_mapping {
        check_value(
            "slot_mapping",
            slot,
            (0..num_slots).contains(&slot),
            "a slot of the cache",
        )?;
    }
    for (t, &slot) in slot_mapping.iter().enumerate() {
        cache[slot as usize * width..][..width].copy_from_slice(x.row(t));
    }
    Ok(())
}

/// Copy row `src` to row `dst` for each (src, dst) of `pairs`, flat; rows of `width` elements.
///
/// # Errors
/// [`KernelError`] when a row lies outside `data`, is written twice, or is both source and
/// destination; nothing is written then.
pub fn copy_rows<T: Copy + Send + Sync>(
    data: &mut [T],
    width: usize,
    pairs: &[i64],
) -> Result<(), KernelError> {
    let num_rows = data.len().checked_div(width).unwrap_or(0);
    let mut written = vec![false; num_rows];
    let row = |given: i64| usize::try_from(given).ok().filter(|row| *row < num_rows);
    for pair in pairs.chunks_exact(2) {
        let free = row(pair[1]).is_some_and(|to| !std::mem::replace(&mut written[to], true));
        check_value(
            "copy destination",
            pair[1],
            free,
            "a row of the cache, each at most once",
        )?;
    }
    for pair in pairs.chunks_exact(2) {
        let kept = row(pair[0]).is_some_and(|from| !written[from]);
        check_value(
            "copy source",
            pair[0],
            kept,
            "a row of the cache that is no destination",
        )?;
    }
    let data = SharedMut(data.as_mut_ptr());
    pool::parallel_for(pairs.len() / 2, |i| {
        let (from, to) = (pairs[2 * i] as usize, pairs[2 * i + 1] as usize);
        // SAFETY: both rows lie inside; destinations are distinct and never a source.
        unsafe {
            std::ptr::copy_nonoverlapping(data.at(from * width), data.at(to * width), width);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{copy_rows, write_rows};
    use crate::rows::Rows;

    #[test]
    fn rows_land_where_they_belong() {
        let mut data: Vec<i32> = (0..8).collect();
        copy_rows(&mut data, 2, &[0, 3, 1, 2]).unwrap();
        assert_eq!(data, [0, 1, 2, 3, 2, 3, 0, 1]);
        let x = Rows::new("x", &[7, 8, 0, 9, 9], 2, 2, 3).unwrap();
        write_rows(&x, &[3, 0], &mut data).unwrap();
        assert_eq!(data, [9, 9, 2, 3, 2, 3, 7, 8]);
    }

    #[test]
    fn a_bad_index_writes_nothing() {
        let mut data: Vec<i32> = (0..6).collect();
        for pairs in [[0, 3, 1, 2], [0, 1, 0, 1], [0, 1, 1, 2], [-1, 1, 0, 2]] {
            assert!(copy_rows(&mut data, 2, &pairs).is_err());
        }
        let x = Rows::contiguous("x", &[1, 2, 3, 4], 2, 2).unwrap();
        assert!(write_rows(&x, &[0, 3], &mut data).is_err());
        assert!(write_rows(&x, &[0, -1], &mut data).is_err());
        assert!(write_rows(&x, &[0], &mut data).is_err());
        assert_eq!(data, [0, 1, 2, 3, 4, 5]);
    }
}
